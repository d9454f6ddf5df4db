"""Limits of answers: what cuts off every answer is refused, what cuts off the longest is said."""

from __future__ import annotations

import re
import warnings

import pytest

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.errors import PreflightError
from repro_rl.plan.planner import PlanOptions, make_plan
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.run.answer_length import answer_lengths, check_answers, possible_actions
from repro_rl.study.conformance import check_model
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.train import run_training
from support.chat_families import family_tokenizer
from support.small import SMALL


@pytest.fixture(scope="module")
def house():
    env = make("alfworld", style="words")
    return env, env.panel("train").ids[0]


def full(**options):
    return PromptBuilder(TextFormat("full", **options))


def test_actions_that_only_later_steps_list(house):
    env, task = house
    actions = possible_actions(env, task)
    _, info = env.reset(options={"task": task})
    assert set(info["admissible"]) < set(actions)
    assert len(actions) == len(set(actions))


@pytest.mark.parametrize("family", ["chatml", "deepseek", "llama2"])
@pytest.mark.parametrize("options", [{}, {"think": "required"}, {"report": "after"}, {"progress": False}])
def test_lengths_are_those_of_the_whole_answer(house, family, options):
    """Tags, progress, what the template adds, and the end."""
    env, task = house
    codec, prompts = TextCodec(family_tokenizer(family)), full(**options)
    found = answer_lengths(env, task, prompts, codec)
    sizes = [
        len(codec.encode_target(prompts.action_target(number, action)))
        for action in possible_actions(env, task)
        for number in (0, 100)
    ]
    assert (found.shortest, found.longest) == (min(sizes), max(sizes))
    assert found.long in {prompts.action_target(100, action) for action in possible_actions(env, task)}


def test_limits_by_hand(house):
    env, task = house
    codec, prompts = TextCodec(family_tokenizer("chatml")), full()
    found = answer_lengths(env, task, prompts, codec)
    assert found.shortest < found.longest
    with pytest.raises(
        PreflightError, match=rf"shortest answer has {found.shortest} tokens.*{found.longest}"
    ):
        check_answers(found.shortest - 1, prompts.fmt, found)
    for limit in (found.shortest, found.longest - 1):
        (line,) = check_answers(limit, prompts.fmt, found)
        assert f"may have {found.longest} tokens ({found.long!r}): it would be cut off" in line
    assert check_answers(found.longest, prompts.fmt, found) == []

    required = full(think="required")
    found = answer_lengths(env, task, required, codec)
    (line,) = check_answers(found.longest, required.fmt, found)
    assert "and a thought (prompt.think) 20 or more" in line
    assert f"Raise it to {found.longest + 20}" in line
    assert check_answers(found.longest + 20, required.fmt, found) == []


def test_a_server_s_tokens_are_estimated_and_never_refused(house):
    env, task = house
    prompts = full()
    found = answer_lengths(env, task, prompts, None)
    exact = answer_lengths(env, task, prompts, TextCodec(family_tokenizer("chatml")))
    assert found.longest <= exact.longest  # few tokens
    (line,) = check_answers(4, prompts.fmt, found)
    assert "shortest answer has about" in line


def test_an_environment_that_lists_nothing_or_fails_is_not_judged(house):
    env, _ = house
    codec = TextCodec(family_tokenizer("chatml"))
    assert answer_lengths(env, "no such task", full(), codec) is None
    assert check_answers(1, full().fmt, None) == []


SHORT = ["prompt.action_tokens=2", "eval.tasks=4"]  # the compact answer is a number, a move and the end
WORDS = r"prompt\.action_tokens is 2, but the shortest answer has 3 tokens \('p0 \w+'\).*Raise it to 3"


def test_training_and_evaluation_refuse_before_anything_is_played(warm, tmp_path):
    config = load_config(None, [*warm.settings, *SHORT, f"train.init={warm.model}"])
    with pytest.raises(PreflightError, match=WORDS):
        run_training(config, tmp_path / "run")
    with pytest.raises(PreflightError, match=WORDS):
        evaluate(config, warm.model, EvalRequest("x", out=tmp_path / "out"))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".jsonl", ".gz", ".json")]


def test_doctor_and_plan_say_it(warm):
    config = load_config(None, [*warm.settings, *SHORT, f"train.init={warm.model}"])
    check = next(c for c in check_model(warm.model, config, prompts=True).checks if c.name == "prompts")
    assert not check.ok
    assert re.match(WORDS, check.detail)
    notes = make_plan(config, [], PlanOptions(tasks=1)).notes
    assert [note for note in notes if re.match(WORDS, note) and "refuses this" in note]


def test_what_fits_is_not_remarked_on(warm):
    config = load_config(None, [*SMALL, "eval.tasks=1"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(config, warm.model, EvalRequest("x", judge=False))
