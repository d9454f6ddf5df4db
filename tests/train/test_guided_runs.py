"""Small whole runs with guided reflections: warmup, training, evaluation, and training without a warmup."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from repro_rl.config import load_config
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.run.lineage import check_context, taught_prompt
from repro_rl.run.setup import set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.train import RLRun, run_training, run_warmup
from support.models import network
from support.small import ROOMS
from support.toy_tokenizers import digit_by_digit

GUIDED = ["prompt.reflect_form=guided", "prompt.reflect_new_tokens=14"]
RUN = ["train.groups=4", "train.group_size=4", "train.iterations=2", "train.save_every=1",
       "train.validate_every=2", "method.rehearsal=2"]  # fmt: skip


@pytest.fixture(scope="module", params=["window", "chat"])
def context(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def guided_warm(warm, context, tmp_path_factory) -> Path:
    short = ["warmup.updates=40", "warmup.forward_batch=8", f"prompt.context={context}"]
    config = load_config(None, [*warm.settings, *GUIDED, *short])
    out = tmp_path_factory.mktemp("guided-warm") / "run"
    rows: list[dict[str, float]] = []
    run_warmup(config, warm.demos, out, on_row=rows.append)
    # three words to choose from: an untrained guess costs ln 3, and there is no other token in the loss
    assert rows[0]["warmup/reflect_loss"] == pytest.approx(math.log(3), abs=0.15)
    assert rows[-1]["warmup/reflect_loss"] < 0.9
    return out


def test_a_run_from_warmup_to_evaluation(warm, guided_warm, context, tmp_path):
    more = [*GUIDED, f"prompt.context={context}", f"train.init={guided_warm}"]
    settings = [*warm.settings, *RUN, *more]
    run = run_training(load_config(None, settings), tmp_path / "run")
    for row in run.log.rows:
        assert row["reflect/valid"] == 1
        assert row["update/mismatch"] < 1e-5  # the ratio of the first step is 1
        assert row["update/skipped"] == 0
        assert row["update/rehearsal_loss"] > 0
    last = tmp_path / "run" / "checkpoints" / "00002"
    config = load_config(None, [*settings, "eval.tasks=4"])
    result = evaluate(config, last, EvalRequest("x", out=tmp_path / "run"))
    assert result["errors"] == 0
    assert result["progress"]["retrospective"] is not None


def test_a_judge_of_guided_reflections_writes_no_free_ones(warm, guided_warm, context):
    settings = [*warm.settings, f"prompt.context={context}"]
    with pytest.raises(ConfigError, match=r"was taught guided reflections.*set prompt.reflect_form=guided"):
        check_context(load_config(None, settings).prompt, guided_warm, taught_prompt(guided_warm))
    check_context(load_config(None, [*settings, *GUIDED]).prompt, guided_warm, taught_prompt(guided_warm))


def test_a_judge_of_free_reflections_may_be_guided(warm, tmp_path):
    settings = [*warm.settings, *GUIDED, *RUN, f"train.init={warm.run}"]
    run = run_training(load_config(None, [*settings, "train.iterations=1"]), tmp_path / "run")
    assert run.log.rows[0]["reflect/valid"] == 1
    assert run.log.rows[0]["update/mismatch"] < 1e-5


def test_reflections_that_may_not_fit_are_refused_before_anything_is_played(warm, tmp_path):
    settings = [*warm.settings, *RUN, f"train.init={warm.run}", "prompt.reflect_form=guided"]
    settings.append("prompt.reflect_new_tokens=12")
    with pytest.raises(PreflightError, match=r"prompt.reflect_new_tokens is 12, .* needs 13 tokens"):
        RLRun(set_up(load_config(None, settings)), tmp_path / "rehearsing")
    config = load_config(None, [*settings, "method.rehearsal=0"])
    run = RLRun(set_up(config), tmp_path / "run")
    with pytest.raises(PreflightError, match=r"prompt.reflect_new_tokens is 12 .* up to 13 tokens"):
        run.step()


CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)


@pytest.fixture(scope="module")
def instruct(tmp_path_factory) -> Path:
    """A folder with an untrained model that has a chat template and writes digit by digit."""
    folder = tmp_path_factory.mktemp("instruct") / "model"
    text = digit_by_digit()
    text.tokenizer.chat_template = CHAT_TEMPLATE
    network("qwen3", vocabulary=text.vocabulary_size, max_position_embeddings=4096).save_pretrained(folder)
    text.save(folder)
    return folder


@pytest.mark.parametrize("mode", ["window", "chat"])
def test_an_instruct_model_is_trained_without_any_warmup(instruct, tmp_path, mode):
    settings = [
        ROOMS,
        f"policy={{model: '{instruct}', device: cpu}}",
        f"prompt={{style: full, think: 'off', context: {mode}, resolution: 1, action_tokens: 32, "
        "reflect_form: guided, reflect_new_tokens: 80, admissible: 'off', max_prompt_tokens: 2000}",
        "method=repro",
        "method={judge_pool: none, judge_temperature: null, rehearsal: 0}",
        f"train={{init: '{instruct}', groups: 2, group_size: 2, iterations: 1, minibatches: 1, epochs: 1, "
        "validate_every: 0, lr: 0.001, lr_warmup: 1}",
        "alarms={}",
        "eval.validation_tasks=8",
    ]
    run = run_training(load_config(None, settings), tmp_path / "run")
    (row,) = run.log.rows
    assert row["reflect/valid"] == 1
    assert row["update/mismatch"] < 1e-5
    assert row["update/grad_norm"] > 0
