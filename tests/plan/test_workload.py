"""The work of an iteration, by hand."""

from __future__ import annotations

from repro_rl.plan.workload import KnownLengths
from support.plan_cases import small_work


def test_the_work_of_an_iteration_by_hand():
    work = small_work()
    assert (work.episodes, work.steps) == (8, 2)
    assert work.prompt == (10 + 20 + 30 + 30) / 4  # the longest is cut to its limit
    assert (work.completion, work.reflect_completion) == (4, 6)
    assert work.prompt_tokens == 16 * 22.5 + 8 * 60
    assert work.completion_tokens == 16 * 4 + 8 * 6
    assert work.trained_cells == 16 * 26.5 + 4 * 66  # half the reflections
    assert work.longest == 76
    assert work.optimizer_steps == 2
    thinking = small_work("prompt.style=full", "prompt.think=optional")
    assert thinking.reflect_completion == 6  # half the limit is less than the answer
    known = KnownLengths(action=3.0)
    assert small_work("prompt.style=full", "prompt.think=optional", known=known).completion == 3
    act = small_work("method={name: gigpo}")
    assert act.reflect_prompt == act.trained_reflections == 0


def test_decode_phases_by_hand():
    # 8 rows at once: 2 steps of 3 passes (the first token comes with the prompt), 5 for the reflection.
    assert [(phase.steps, phase.rows) for phase in small_work().decode_phases] == [(6, 8), (5, 8)]
    assert len(small_work("method={name: gigpo}").decode_phases) == 1
