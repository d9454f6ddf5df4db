"""The rules that join sections of a run's settings."""

from __future__ import annotations

import pytest

from repro_rl.config import RunConfig, load_config
from repro_rl.errors import ConfigError


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.judge_temperature=0.4", "method.reflect_share=1"], "or method.reflect_share below 1"),
        (
            ["train={groups: 6, minibatches: 4}"],
            r"train\.groups \(6\) must be a multiple of train.minibatches \(4\)",
        ),
        (["policy.backend=vllm-server"], r"policy\.vllm\.server\.url is empty"),
        (["policy.model=api:gpt"], r"policy\.model is 'api:gpt': an API model has no weights"),
        (["train.init=api:gpt"], r"train\.init is 'api:gpt'"),
        (
            ["method=repro-fixed-judge", "prompt.context=chat"],
            r"^method\.judge=reference needs prompt\.context=window; it is chat",
        ),
        (
            ["method=gagpo", "prompt.context=chat"],
            r"gspo, which method gagpo may set: it has one",
        ),
        (
            ["train.loss.name=gspo", "prompt.context=chat"],
            r"context=window, or train\.loss\.name=ppo_clip",
        ),
        (["method=dr-grpo", "prompt.context=chat"], r"a whole episode\. Set train\.loss\.scale"),
    ],
)
def test_contradictions(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["method.judge_temperature=0.4", "method.reflect_share=0.5"],
        ["method.judge_temperature=0.4", "method.reflect_share=1", "method.reflect_coef=0"],
        ["method.judge_temperature=0.7", "method.reflect_share=1", "train.temperature=0.7"],
        ["method.judge_temperature=null", "method.reflect_share=1"],
        ["policy.backend=vllm-server", "policy.vllm.server.url=http://localhost:8000/v1"],
    ],
)
def test_what_looks_like_a_contradiction_and_is_none(overrides: list[str]) -> None:
    assert isinstance(load_config(None, overrides), RunConfig)


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        (["train.kl.form=none"], False),
        (["train.kl.coef=0"], False),
        (["train.kl={form: k3, coef: 0.1}"], True),
        (["train.kl.form=none", "method=repro-fixed-judge"], True),
    ],
)
def test_when_the_reference_model_is_needed(overrides: list[str], needed: bool) -> None:
    assert load_config(None, overrides).needs_reference is needed


@pytest.mark.parametrize(
    "settings",
    [
        ["method=dr-grpo", "train.loss.scale=40"],
        ["method=gagpo", "train.loss.name=ppo_clip"],
        ["method=grpo"],
    ],
)
def test_what_a_chat_can_train_with(settings: list[str]) -> None:
    loss = load_config(None, [*settings, "prompt.context=chat"]).train.loss
    assert (loss.name, loss.scale) == ("ppo_clip", 40.0 if "method=dr-grpo" in settings else None)
