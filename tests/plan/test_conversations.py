"""The work of an iteration in chat mode, by hand."""

from __future__ import annotations

import pytest

from repro_rl.plan.conversations import conversation_work
from repro_rl.plan.iteration_time import iteration_flops
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.tokens import TokenTable
from repro_rl.plan.training_setup import training_setup
from repro_rl.plan.workload import KnownLengths, Workload
from support.plan_cases import SHAPE, small_config

# Two episodes: turns of 20, 4, 4 tokens, and of 30 and 2; answers of 5 tokens.
TABLE = TokenTable(
    action=[20, 4, 4, 30, 2],
    reflect=[7, 9],
    episode_steps=[3, 2],
    action_target=[5] * 5,
    reflect_target=[6, 6],
)


def chat_work(*overrides: str, known: KnownLengths | None = None) -> Workload:
    config = small_config("prompt.context=chat", "prompt.max_chat_tokens=100", *overrides)
    return conversation_work(
        TABLE, config.prompt, config.policy, config.train, config.method, known or KnownLengths()
    )


def test_the_work_of_an_iteration_by_hand():
    """2 tasks, 4 rollouts each; half of the reflections are trained."""
    work = chat_work("prompt.action_tokens=5")
    assert (work.episodes, work.steps) == (8, 2.5)
    assert work.prompt == 12
    assert (work.completion, work.reflect_prompt, work.reflect_completion) == (5, 8, 6)
    whole = (28 + 15 + 32 + 10) / 2  # mean conversation before its reflection
    assert work.action_rows * (work.prompt + work.completion) == 8 * whole
    assert work.trained_cells == 8 * whole + 4 * (8 + 6)
    assert work.trained_tokens == 8 * 2.5 * 5 + 4 * 6
    assert work.longest == 43 + 8 + 6
    first = 25  # mean first turn, read once for the four rollouts of a task
    read = work.action_rows * (work.prompt - work.shared_prefix)
    assert read == pytest.approx(8 * (30 - first) + 2 * first)
    assert work.acting_context == whole / 2
    assert work.reflect_context == whole


def test_all_conversations_are_played_together_where_the_cache_allows():
    work = chat_work("policy.max_cache_tokens=800")
    assert work.decode_rows == 8
    acting, reflecting = work.decode_phases
    # 3 steps until the longest episode ends, 4 tokens each; 2.5 of 3 conversations are alive on average.
    assert (acting.steps, acting.rows) == (3 * 4, pytest.approx(8 * 2.5 / 3))
    assert (reflecting.steps, reflecting.rows) == (6, 8)
    halves = chat_work("policy.max_cache_tokens=400")
    assert halves.decode_rows == 4
    assert [phase.steps for phase in halves.decode_phases] == [2 * 12, 2 * 6]
    assert len(chat_work("method={name: gigpo}").decode_phases) == 1


def test_common_beginnings_are_computed_once_by_the_packed_forward_pass():
    config = small_config()
    training = training_setup(config.policy, config.train, False)
    apart = chat_work("train.micro_tokens=1")
    assert apart.trained_shared == 0
    together = chat_work("train.micro_tokens=10000")
    assert together.trained_shared == 25 * 8 * (1 - 1 / 4)

    def update(shape: ModelShape, packed: bool) -> float:
        return iteration_flops(shape, together, training, packed).update

    assert update(SHAPE, True) < update(SHAPE, False)
    assert iteration_flops(SHAPE, apart, training, True) == iteration_flops(SHAPE, apart, training)
    assert together.packed_logits is not None
    assert together.packed_logits < together.update_batch_logits < together.update_batch_cells


def test_known_lengths_replace_the_demonstrated_ones():
    work = chat_work("prompt.action_tokens=5", known=KnownLengths(2.0, 3.0))
    assert (work.completion, work.reflect_completion) == (2, 3)
    assert work.trained_tokens == 8 * 2.5 * 2 + 4 * 3
