"""Small whole runs in chat mode."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from repro_rl.config import load_config
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.run.lineage import check_context, taught_prompt
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun, run_training, run_warmup


@pytest.fixture(scope="module")
def chat_warm(warm, tmp_path_factory) -> Path:
    """A warm start in chat mode; short, because only its formats are looked at."""
    config = load_config(None, [*warm.settings, *CHAT, "warmup.updates=40", "warmup.forward_batch=8"])
    out = tmp_path_factory.mktemp("chat-warm") / "run"
    run_warmup(config, warm.demos, out)
    return out


CHAT = ["prompt.context=chat"]
RUN = ["train.groups=4", "train.group_size=4", "train.iterations=2", "train.save_every=1",
       "train.validate_every=2", "method.rehearsal=2"]  # fmt: skip


def test_a_run_in_chat_mode_from_warmup_to_evaluation(warm, chat_warm, tmp_path):
    settings = [*warm.settings, *CHAT, *RUN, f"train.init={chat_warm}"]
    whole = run_training(load_config(None, settings), tmp_path / "whole")
    assert [row["iteration"] for row in whole.log.rows] == [1, 2]
    for row in whole.log.rows:
        assert row["update/mismatch"] < 1e-5
        assert row["update/skipped"] == 0
        assert row["update/rehearsal_loss"] > 0
        assert row["rollout/context_full"] == 0
        assert 30 < row["rollout/conversation_tokens"] < 256
        assert math.isfinite(row["update/kl"])
    assert "validation/success" in whole.log.rows[-1]
    # Killed after its first checkpoint and continued: the same weights.
    part = RLRun(set_up(load_config(None, settings)), tmp_path / "broken")
    part.log.add(part.step())
    part.save()
    broken = run_training(load_config(None, settings), tmp_path / "broken")
    for one, two in zip(
        whole.policy.model.parameters(), broken.policy.model.parameters(), strict=True
    ):  # fmt: skip
        assert torch.equal(one, two)
    last = tmp_path / "whole" / "checkpoints" / "00002"
    assert json.loads((last / "state.json").read_text())["context"] == "chat"
    assert json.loads((tmp_path / "whole" / "manifest.json").read_text())["context"] == "chat"

    from repro_rl.study.evaluate import EvalRequest, evaluate

    config = load_config(None, [*settings, "eval.tasks=4"])
    result = evaluate(config, last, EvalRequest("x", out=tmp_path / "whole"))
    assert (result["context"], result["episodes"], result["errors"]) == ("chat", 4, 0)
    assert result["progress"]["retrospective"] is not None
    # what evaluation plays is greedy-free but named: the same again
    assert evaluate(config, last, EvalRequest("y"))["won"] == result["won"]


@pytest.mark.parametrize("method", ["grpo", "gigpo", "repro-act"])
def test_methods_run_in_chat_mode(warm, chat_warm, tmp_path, method):
    settings = [*warm.settings, *CHAT, *RUN, f"train.init={chat_warm}", f"method={method}"]
    config = load_config(None, [*settings, "train.groups=2", "method.rehearsal=0"])
    run = RLRun(set_up(config), tmp_path / "run")
    row = run.step()
    assert row["update/mismatch"] < 1e-5
    assert ("reflect/valid" in row) is (method == "repro-act")


def test_a_model_is_used_in_the_mode_it_was_taught(warm, chat_warm, tmp_path):
    chat = load_config(None, [*warm.settings, *CHAT, f"train.init={warm.run}"])
    with pytest.raises(ConfigError, match=r"was trained with prompt.context=window, this run has .*=chat"):
        RLRun(set_up(chat), tmp_path / "a")
    window = load_config(None, [*warm.settings, f"train.init={chat_warm}"])
    with pytest.raises(ConfigError, match=r"was trained with prompt.context=chat, this run has .*=window"):
        RLRun(set_up(window), tmp_path / "b")
    full = load_config(None, ["prompt.style=full", *CHAT])
    with pytest.warns(UserWarning, match="reads these prompts untaught"):
        check_context(full.prompt, warm.run / "model", taught_prompt(warm.run / "model"))
    check_context(chat.prompt, chat_warm / "model", taught_prompt(chat_warm / "model"))
    check_context(chat.prompt, "api:someone", taught_prompt("api:someone"))
    check_context(chat.prompt, tmp_path, taught_prompt(tmp_path))  # made by no run here


def test_verl_needs_one_prompt_a_step(warm):
    from repro_rl.integrations.verl.recipe import checked

    config = load_config(None, [*warm.settings, *CHAT, "train.kl.form=k3", "method.rehearsal=0"])
    with pytest.raises(ConfigError, match=r"needs prompt\.context=window; it is chat"):
        checked(config)


def test_a_first_turn_that_cannot_fit_is_refused_before_the_run(warm, chat_warm, tmp_path):
    config = load_config(
        None, [*warm.settings, *CHAT, f"train.init={chat_warm}", "prompt.max_chat_tokens=45"]
    )
    with pytest.raises(PreflightError, match=r"conversations of 45 \(prompt.max_chat_tokens"):
        RLRun(set_up(config), tmp_path / "run")
