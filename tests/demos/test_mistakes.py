"""Noise-injected demonstrations: which actions are executed, and what every state is labelled with."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import repro_rl
from repro_rl.config import DemosSection
from repro_rl.demos import collect_demos, load_demos, save_demos
from repro_rl.demos.incontext import InContextDemos
from repro_rl.demos.mistakes import Mistakes, demonstrate, play_with_mistakes
from repro_rl.errors import DataError


@pytest.fixture(scope="module")
def households():
    return repro_rl.make("alfworld", games=12)


@pytest.fixture(scope="module")
def demos(households):
    section = DemosSection(expert=8, mistakes=(0.0, 0.4), wandering=0.25, winning=2, failing=2)
    return collect_demos(households, households.panel("train").ids, section, seed=0)


def test_without_mistakes_the_answer_is_executed():
    mistakes = Mistakes(np.random.default_rng(0), 0.0)
    info = {"admissible": ["look", "go to shelf 1"], "goal": "tidy"}
    assert {mistakes.executed("go to shelf 1", info) for _ in range(50)} == {"go to shelf 1"}
    assert mistakes.executed("", info) in info["admissible"]  # where the expert has no answer


def test_kinds_of_mistakes():
    mistakes = Mistakes(np.random.default_rng(0), 0.999999)
    mistakes.executed("look", {"admissible": ["open safe 1"], "goal": ""})  # possible earlier only
    drawn = Counter(
        mistakes.executed("go to drawer 2", {"admissible": ["look", "go to bed 1"], "goal": ""})
        for _ in range(2000)
    )
    wrong = {f"go to drawer {n}" for n in (1, 3, 4, 5, 6)}
    assert wrong <= set(drawn)  # a wrong number, at most 4 away and at least 1
    assert {"look", "go to bed 1", "open safe 1"} <= set(drawn)
    assert set(drawn) <= wrong | {"look", "go to bed 1", "open safe 1"}
    assert 0.25 < sum(drawn[action] for action in wrong) / 2000 < 0.5  # 35 % and some repetitions


def test_a_query_is_filled_with_words_of_the_goal():
    mistakes = Mistakes(np.random.default_rng(0), 0.999999)
    info = {"admissible": ["search[<your query>]"], "goal": "a red mug"}
    for _ in range(30):
        action = mistakes.executed("search[mug]", info)
        assert set(action.removeprefix("search[").removesuffix("]").split()) <= {"a", "red", "mug"}


def test_tags_that_are_no_free_text_stand():
    call = '<tool_call>{"name": "look"}</tool_call>'
    mistakes = Mistakes(np.random.default_rng(0), 0.999999)
    drawn = {mistakes.executed("x", {"admissible": [call], "goal": "a red mug"}) for _ in range(30)}
    assert drawn <= {call, "x"}


def test_every_state_has_the_experts_answer(households):
    task = households.panel("train").ids[0]
    trajectory = demonstrate(households, task, "reader", 0.5, seed=3)
    assert any(step.mistake for step in trajectory.steps)
    _, info = households.reset(options={"task": task})
    for step in trajectory.steps:  # replayed: the same answers, for the same texts
        assert step.advice is not None
        assert step.advice.action == households.reader(3)
        info = households.step(step.action)[4]
        assert info["progress"] == step.truth
        if not step.mistake:
            assert step.advice.truth == step.truth
    assert info["won"] == trajectory.won


def test_the_progress_of_an_answer_that_was_not_executed(households):
    """It is what the environment says when the answer is executed in that state."""
    task = households.panel("train").ids[1]
    trajectory = demonstrate(households, task, "planner", 0.6, seed=1)
    checked = 0
    for index, step in enumerate(trajectory.steps):
        if not step.mistake:
            continue
        households.reset(options={"task": task})
        for before in trajectory.steps[:index]:
            households.step(before.action)
        assert households.step(step.advice.action)[4]["progress"] == step.advice.truth
        checked += 1
    assert checked > 3


def test_seed_decides(households):
    task = households.panel("train").ids[2]
    actions = [
        [step.action for step in play_with_mistakes(households, task, "reader", 0.3, seed).steps]
        for seed in (1, 1, 2)
    ]
    assert actions[0] == actions[1] != actions[2]


def test_collected_episodes(demos):
    imitated, labelled = demos
    experts, wandering = imitated[:8], imitated[8:]
    assert all(t.won for t in experts)
    assert len(wandering) == 2  # a quarter, won or not
    assert not any(step.mistake for t in experts[::2] for step in t.steps)  # shares 0, .4, 0, .4, ...
    assert all(any(step.mistake for step in t.steps) for t in (*experts[1::2], *wandering))
    assert all(step.advice is None for t in labelled for step in t.steps)  # to judge, not to imitate
    assert [t.won for t in labelled].count(True) == 2


def test_labels_of_answers_are_true_progress(demos):
    for trajectory in demos[0]:
        for step in trajectory.steps:
            assert step.advice is not None
            assert step.online == trajectory.reflection.values[step.t - 1]
            if not step.mistake:
                assert step.advice.online == step.online
            elif step.advice.action:
                expected = round(100 * step.advice.truth)
                assert step.advice.online == (expected if step.advice.truth == 1 else min(99, expected))
    # not a function of the step: the same step number has many labels
    third = {t.steps[3].advice.online for t in demos[0] if len(t.steps) > 3}
    assert len(third) > 2


def test_other_annotators_know_the_executed_action_alone(households):
    """The label of an answer: that of the step or of the one before, whichever is higher."""
    section = DemosSection(expert=4, mistakes=(0.4,), wandering=0, winning=0, failing=0, annotator="random")
    experts, _ = collect_demos(households, households.panel("train").ids, section, seed=0)
    for trajectory in experts:
        before = 0
        for step in trajectory.steps:
            assert step.advice.online == (max(before, step.online) if step.mistake else step.online)
            before = step.online


def test_records_keep_the_advice(demos, tmp_path):
    save_demos(tmp_path, *demos)
    again = load_demos(tmp_path)[0]
    assert [[s.advice for s in t.steps] for t in again] == [[s.advice for s in t.steps] for t in demos[0]]
    assert [[s.mistake for s in t.steps] for t in again] == [[s.mistake for s in t.steps] for t in demos[0]]


def test_prompts_show_no_episode_with_mistakes(demos):
    shown = InContextDemos(demos[0], "retrospective", count=2)
    assert all(not step.mistake for task in "ab" for t in shown.choose(task, "", "") for step in t.steps)
    with pytest.raises(DataError, match=r"expert episodes without mistakes.*demos\.mistakes=\[0\.0\]"):
        InContextDemos(demos[0][1::2], "retrospective", count=2)


def test_a_whole_board_is_read_by_its_solver():
    """Sokoban shows the whole board, so its expert knows nothing that the agent does not see."""
    env = repro_rl.make("sokoban", train_rooms=2, validation_rooms=1, test_rooms=1, solution=(3, 8))
    env.reset(options={"task": env.panel("train").ids[0]})
    assert env.reader(7) == env.expert() is not None


def test_experts_that_fail_name_what_to_change(households):
    class Lost(type(households)):
        def reader(self, seed=0):
            return "look"

    env = Lost(games=10)
    with pytest.raises(
        DataError, match=r"solves 0 of 11 tasks; lower demos\.mistakes, raise .* max_steps \(50\)"
    ):
        collect_demos(env, env.panel("train").ids, DemosSection(expert=1), seed=0)


def test_an_expert_that_cannot_read_its_tasks_is_told_apart(households):
    class Foreign(type(households)):
        def reader(self, seed=0):
            return None

    env = Foreign(games=10)
    message = r"0 of 11 tasks \(in 11 it had no answer to the first observation\).*demos\.agent=planner"
    with pytest.raises(DataError, match=message):
        collect_demos(env, env.panel("train").ids, DemosSection(expert=1), seed=0)
