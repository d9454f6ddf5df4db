"""Chat mode in the stages: demonstrations as conversations, and a small whole run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.demos import load_demos
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy import TransformersPolicy
from repro_rl.rollout import EnvPool
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.train.chat_warmup import ChatDemos
from repro_rl.train.contexts import check_context
from repro_rl.train.loop import RLRun, run_training
from repro_rl.train.warmup import run_warmup, warmup_data

# Demonstrations -----------------------------------------------------------------------------------

CHAT = ["prompt.context=chat"]


def test_demonstrations_become_conversations(warm, tmp_path):
    config = load_config(None, [*warm.settings, *CHAT])
    experts, labelled = load_demos(warm.demos)
    pool = EnvPool(config.env.name, config.env.settings)
    policy = TransformersPolicy.load(warm.model, device="cpu")
    data = warmup_data(config, policy, pool, experts, labelled)
    assert len(data.forward) == 2 * len(experts)  # with and without progress
    assert len(data.won) + len(data.lost) == len(experts) + len(labelled)
    ours, prompts = experts[0], PromptBuilder(TextFormat("compact"), resolution=50)
    demos = ChatDemos(config, policy, pool.first)
    row = demos.forward(ours, prompts)
    words = policy.tokenizer.convert_ids_to_tokens(row.ids.tolist())
    spoken = [w for w, trained in zip(words, row.trained, strict=True) if trained]
    told = []
    for step in ours.steps:
        told += [*prompts.render_forward_target(step.online, step.action).split(), "<eos>"]
    assert spoken == told
    assert [w for w in words if w not in spoken][:3] == ours.steps[0].observation.split()[:3]
    # In a reflection row only the reflection is trained, and progress said while acting is not the label.
    row = demos.reflection(ours, prompts, 0)
    words = policy.tokenizer.convert_ids_to_tokens(row.ids.tolist())
    assert ours.reflection is not None
    target = [*prompts.render_reflection_target(ours.reflection.values or ()).split(), "<eos>"]
    assert words[-len(target) :] == target
    assert row.trained.tolist() == [False] * (len(words) - len(target)) + [True] * len(target)
    drawn = set()
    for n in range(8):
        ids = demos.reflection(ours, prompts, n).ids.tolist()[: -len(target)]
        words = policy.tokenizer.convert_ids_to_tokens(ids)
        drawn.add(tuple(w for w in words if w.startswith("p") and w[1:].isdigit()))
    assert len(drawn) > 2
    assert all(len(progress) == len(ours.steps) for progress in drawn)
    # the same names, the same numbers
    assert np.array_equal(demos.reflection(ours, prompts, 3).ids, demos.reflection(ours, prompts, 3).ids)


def test_the_pilots_prompts_become_conversations_too(warm):
    modes = "warmup.forward_modes=[action, demos-retrospective]"
    config = load_config(None, [*warm.settings, *CHAT, modes, "prompt.demonstrations=1"])
    experts, labelled = load_demos(warm.demos)
    policy = TransformersPolicy.load(warm.model, device="cpu")
    data = warmup_data(config, policy, EnvPool(config.env.name, config.env.settings), experts, labelled)
    plain, shown = data.forward[: len(experts)], data.forward[len(experts) :]
    for one, two in zip(plain, shown, strict=True):
        assert len(two.ids) > len(one.ids)
        assert two.trained.sum() == one.trained.sum()
        told = [row.ids[row.trained].tolist() for row in (one, two)]
        assert told[0] == told[1]  # the demonstration is context; the answers are the same


def test_demonstrations_say_what_is_too_small(warm):
    experts, _ = load_demos(warm.demos)
    long = max(experts, key=lambda t: t.length)
    policy = TransformersPolicy.load(warm.model, device="cpu")
    prompts = PromptBuilder(TextFormat("compact"), resolution=50)

    def demos(*more: str) -> ChatDemos:
        config = load_config(None, [*warm.settings, *CHAT, *more])
        return ChatDemos(config, policy, make("sokoban", **config.env.settings))

    with pytest.raises(PreflightError, match=r"room for \d+ of its \d+ steps; raise prompt.max_chat_tokens"):
        demos("prompt.max_chat_tokens=75").reflection(long, prompts)
    shorter = demos("prompt.max_chat_tokens=75").forward(long, prompts)
    assert 0 < shorter.trained.sum() < demos().forward(long, prompts).trained.sum()
    with pytest.raises(PreflightError, match=r"The first turn of"):
        demos("prompt.max_chat_tokens=40").forward(long, prompts)
    with pytest.raises(PreflightError, match=r"action_tokens is 2, but a demonstration needs 3"):
        demos("prompt.action_tokens=2").forward(long, prompts)
    with pytest.raises(PreflightError, match=r"reflect_new_tokens is 2, but a demonstration needs"):
        demos("prompt.reflect_new_tokens=2").reflection(long, prompts)


# Whole runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chat_warm(warm, tmp_path_factory) -> Path:
    """A warm start in chat mode; short, because only its formats are looked at."""
    config = load_config(None, [*warm.settings, *CHAT, "warmup.updates=40", "warmup.forward_batch=8"])
    out = tmp_path_factory.mktemp("chat-warm") / "run"
    run_warmup(config, warm.demos, out)
    return out


RUN = ["train.groups=4", "train.group_size=4", "train.iterations=2", "train.save_every=1",
       "train.eval_every=2", "method.rehearsal=2"]  # fmt: skip


def test_a_run_in_chat_mode_from_warmup_to_evaluation(warm, chat_warm, tmp_path):
    settings_ = [*warm.settings, *CHAT, *RUN, f"train.init={chat_warm}"]
    whole = run_training(load_config(None, settings_), tmp_path / "whole")
    assert [row["iteration"] for row in whole.log.rows] == [1, 2]
    for row in whole.log.rows:
        assert row["update/mismatch"] < 1e-5
        assert row["update/skipped"] == 0
        assert row["update/rehearsal_loss"] > 0
        assert row["rollout/context_full"] == 0
        assert 30 < row["rollout/conversation_tokens"] < 256
        assert math.isfinite(row["update/kl"])
    assert "eval/success" in whole.log.rows[-1]
    # Killed after its first checkpoint and continued: the same weights.
    part = RLRun(load_config(None, settings_), tmp_path / "broken")
    part.log.add(part.step())
    part.save()
    broken = run_training(load_config(None, settings_), tmp_path / "broken")
    for one, two in zip(
        whole.policy.model.parameters(), broken.policy.model.parameters(), strict=True
    ):  # fmt: skip
        assert torch.equal(one, two)
    last = tmp_path / "whole" / "checkpoints" / "00002"
    assert json.loads((last / "state.json").read_text())["context"] == "chat"
    assert json.loads((tmp_path / "whole" / "manifest.json").read_text())["context"] == "chat"

    from repro_rl.study.evaluate import evaluate

    config = load_config(None, [*settings_, "eval.tasks=4"])
    result = evaluate(config, last, name="x", out=tmp_path / "whole")
    assert (result["context"], result["episodes"], result["errors"]) == ("chat", 4, 0)
    assert result["progress"]["retrospective"] is not None
    # what evaluation plays is greedy-free but named: the same again
    assert evaluate(config, last, name="y")["won"] == result["won"]


@pytest.mark.parametrize("method", ["grpo", "gigpo", "repro-act"])
def test_methods_run_in_chat_mode(warm, chat_warm, tmp_path, method):
    settings_ = [*warm.settings, *CHAT, *RUN, f"train.init={chat_warm}", f"method={method}"]
    run = RLRun(load_config(None, [*settings_, "train.groups=2", "method.rehearsal=0"]), tmp_path / "run")
    row = run.step()
    assert row["update/mismatch"] < 1e-5
    assert ("reflect/valid" in row) is (method == "repro-act")


def test_a_model_is_used_in_the_mode_it_was_taught(warm, chat_warm, tmp_path):
    chat = load_config(None, [*warm.settings, *CHAT, f"train.init={warm.run}"])
    with pytest.raises(ConfigError, match=r"was trained with prompt.context=window, this run has .*=chat"):
        RLRun(chat, tmp_path / "a")
    window = load_config(None, [*warm.settings, f"train.init={chat_warm}"])
    with pytest.raises(ConfigError, match=r"was trained with prompt.context=chat, this run has .*=window"):
        RLRun(window, tmp_path / "b")
    full = load_config(None, ["prompt.style=full", *CHAT])
    with pytest.warns(UserWarning, match="reads these prompts untaught"):
        check_context(full, warm.run / "model")
    check_context(chat, chat_warm / "model")
    check_context(chat, "api:someone")
    check_context(chat, tmp_path)  # made by no run of ours: nothing is known


def test_what_knows_no_conversations_says_so(warm):
    from repro_rl.integrations.verl.recipe import checked
    from repro_rl.plan.plan import make_plan

    config = load_config(None, [*warm.settings, *CHAT, "train.kl.form=k3", "method.rehearsal=0"])
    for what in (lambda: checked(config), lambda: make_plan(config, [])):
        with pytest.raises(ConfigError, match=r"knows only prompt\.context=window"):
            what()


def test_a_first_turn_that_cannot_fit_is_said_before_the_run(warm, chat_warm, tmp_path):
    config = load_config(
        None, [*warm.settings, *CHAT, f"train.init={chat_warm}", "prompt.max_chat_tokens=45"]
    )
    with pytest.raises(PreflightError, match=r"conversations of 45 \(prompt.max_chat_tokens"):
        RLRun(config, tmp_path / "run")
