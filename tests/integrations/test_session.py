"""A session: the same episodes as our rollouts, its texts, and the errors that failures become."""

from __future__ import annotations

import importlib
import itertools
import sys
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl import TaskPanel, TextEnv, make, register_env
from repro_rl.envs.checker import check_env
from repro_rl.errors import (
    ConfigError,
    DataError,
    EnvError,
    MissingDependencyError,
    TaskError,
    UnknownNameError,
)
from repro_rl.integrations.session import FORMS, EpisodeSession, open_session
from repro_rl.rollout.episode import play_actions
from repro_rl.text import PromptBuilder, StepInputs, TextFormat
from support.adapters_page import run_section

ENVS = {"sokoban": {"style": "grid"}, "alfworld": {"games": 12}, "webshop": {"generated": (120, 0)}}


class Counter(TextEnv):
    """Counts to a number that is the task; each method can be made to fail."""

    name = "counter"
    max_steps = 3
    instructions = "Say more."

    def __init__(self, ends: bool = True):
        self.ends = ends
        self.failure: Exception | None = None
        self.wrong: dict[str, Any] = {}

    def panel(self, split: str) -> TaskPanel:
        if split not in ("train", "test", "validation"):
            raise TaskError(f"no split {split}")
        ids = () if split == "validation" else tuple(f"{split}/{n}" for n in (1, 2, 3))
        return TaskPanel(self.name, split, ids, ids)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.task = self.chosen_task(options, "train")
        if self.task not in (*self.panel("train"), *self.panel("test")):
            raise TaskError(f"no task {self.task}")
        self.goal, self.count, self.steps = int(self.task[-1]), 0, 0
        return self._seen(True)

    def step(self, action: str):
        if self.failure is not None:
            raise self.failure
        self.steps += 1
        self.count += action == "more"
        won = self.count == self.goal
        text, info = self._seen(action == "more")
        return text, 10.0 * won, won, self.ends and not won and self.steps >= 3, info

    def _seen(self, valid: bool):
        share = self.count / self.goal
        info = {"task_id": self.task, "goal": f"Count to {self.goal}.", "admissible": ["more"]}
        info |= {"anchor": self.count, "valid": valid, "won": share == 1, "score": share, "progress": share}
        return f"at {self.count}", info | self.wrong

    def expert(self) -> str | None:
        return "more" if self.count < self.goal else None


@pytest.fixture
def counting() -> EpisodeSession:
    return EpisodeSession(Counter())


def choices(seed: int):
    """Ways to act by what ``info`` says: any admissible action, or nonsense."""
    numbers = itertools.count(seed)

    def choose(info: dict[str, Any]) -> str:
        n = next(numbers)
        return "nonsense" if n % 5 == 0 else info["admissible"][(n * 7) % len(info["admissible"])]

    return choose


@pytest.mark.parametrize("name", ENVS)
def test_an_episode_is_that_of_a_rollout(name: str) -> None:
    """Every step and the outcome, for the expert and for two ways to wander, on two tasks."""
    session, env = open_session(name, ENVS[name], split="test"), make(name, **ENVS[name])
    for index, way in itertools.product((0, 1), ("expert", 1, 2)):
        first = choices(way) if isinstance(way, int) else lambda info: env.expert() or ""
        second = choices(way) if isinstance(way, int) else lambda info: session.env.expert() or ""
        task = env.panel("test").ids[index]
        trajectory = play_actions(env, task, first)
        result = session.reset(index=index)
        assert (result.task_id, result.goal, result.step) == (task, trajectory.goal, 0)
        assert result.observation == trajectory.steps[0].observation
        for step in trajectory.steps:
            result = session.step(second(session.info))
            assert (result.step, result.action, result.observation) == (step.t, step.action, step.feedback)
            assert (result.valid, result.reward, result.progress) == (
                step.valid,
                step.env_reward,
                step.truth,
            )
            assert result.done == (step.t == trajectory.length)
        assert (result.won, result.score, result.truncated) == (
            trajectory.won,
            trajectory.score,
            trajectory.truncated,
        )
        assert session.total_reward == trajectory.env_return
        assert result.won == (way == "expert")


def test_the_counter_keeps_the_contract_and_counts_by_hand(counting: EpisodeSession) -> None:
    problems = [check for check in check_env(Counter(), "train", 3, Counter) if not check.ok]
    assert problems == []
    first = counting.reset("train/2")
    assert (first.progress, first.admissible, first.done, counting.done) == (0.0, ("more",), False, False)
    rewards = [counting.step("less").reward, counting.step("more").reward, counting.step("more").reward]
    assert (rewards, counting.total_reward) == ([0, 0, 10], 10)
    last = counting.last
    assert last is not None
    assert (last.won, last.done, last.truncated, last.score, last.step) == (True, True, False, 1.0, 3)
    counting.reset("train/3")
    counting.step("less")
    counting.step("more")
    last = counting.step("more")
    assert (last.won, last.done, last.truncated, last.progress) == (False, True, True, pytest.approx(2 / 3))


def test_tasks_by_id_position_split_and_seed(counting: EpisodeSession) -> None:
    assert counting.reset("test/3").task_id == "test/3"
    assert counting.reset(index=1).task_id == "train/2"
    assert counting.reset(index=1, split="test").task_id == "test/2"
    drawn = [counting.reset(seed=seed).task_id for seed in range(20)]
    assert set(drawn) == set(counting.panel.ids)
    assert drawn == [counting.reset(seed=seed).task_id for seed in range(20)]
    counting.reset(seed=5)
    following = [counting.reset().task_id for _ in range(8)]
    counting.reset(seed=5)
    assert following == [counting.reset().task_id for _ in range(8)]
    assert len(set(following)) > 1
    assert counting.splits() == ("train", "test")  # there is a split validation, without tasks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "train/9"}, "no task train/9"),
        ({"index": 3}, r"Panel counter/train\[3\]@\w+ has no task 3; positions go from 0 to 2\."),
        ({"index": -1}, "has no task -1"),
        ({"split": "other"}, "no split other"),
        ({"seed": -1}, "the seed is -1; give a whole number of at least 0"),
        ({"split": "validation"}, r"Panel counter/validation\[0\]@\w+ has no tasks"),
    ],
    ids=str,
)
def test_a_task_that_is_not_there(counting: EpisodeSession, arguments: dict, message: str) -> None:
    counting.reset(index=0)
    with pytest.raises(TaskError, match=message):
        counting.reset(**arguments)
    with pytest.raises(TaskError, match="call reset before step"):  # the episode before was given up
        counting.step("more")


def test_no_step_before_a_reset_and_after_the_end(counting: EpisodeSession) -> None:
    for _ in range(2):
        with pytest.raises(TaskError, match="call reset before step"):
            counting.step("more")
        counting.reset(index=0)
        assert counting.step("more").won


@pytest.mark.parametrize(
    ("failure", "raised", "message"),
    [
        (ConnectionResetError("gone"), EnvError, "failed: ConnectionResetError at step 2: gone"),
        (KeyError("x"), EnvError, "failed: KeyError at step 2: 'x'"),
        (EnvError("server lost"), EnvError, "^server lost$"),
        (DataError("broken", file="f"), DataError, "file f: broken"),
    ],
)
def test_a_failing_environment(counting: EpisodeSession, failure, raised, message) -> None:
    counting.reset("train/3")
    counting.step("more")
    counting.env.failure = failure
    with pytest.raises(raised, match=message):
        counting.step("more")
    assert counting.last is None
    with pytest.raises(TaskError, match="call reset before step"):
        counting.step("more")
    counting.env.failure = None
    counting.reset("train/1")
    assert counting.step("more").won


@pytest.mark.parametrize(
    ("key", "value"), [("score", float("nan")), ("won", 1), ("admissible", "more"), ("goal", None)]
)
def test_a_broken_contract(counting: EpisodeSession, key: str, value: Any) -> None:
    counting.reset("train/3")
    counting.env.wrong = {key: value}
    with pytest.raises(EnvError, match=rf"step\(\) returned info\['{key}'\]"):
        counting.step("more")
    with pytest.raises(EnvError, match=rf"reset\(\) returned info\['{key}'\]"):
        counting.reset("train/3")


def test_an_environment_without_an_end_fails_as_in_rollouts() -> None:
    session = EpisodeSession(Counter(ends=False))
    session.reset("train/3")
    for _ in range(5):
        assert not session.step("less").done
    with pytest.raises(EnvError, match="did not end within 6 steps; max_steps is 3"):
        session.step("less")


def test_a_limit_truncates_before_the_environment_does() -> None:
    session = EpisodeSession(Counter(), form="chat", limit=2)
    assert session.max_steps == 2
    assert "step 1 of at most 2" in session.reset("train/3").text
    assert not session.step("more").done
    last = session.step("more")
    assert (last.done, last.truncated, last.won) == (True, True, False)
    session.reset("train/2")
    session.step("more")
    last = session.step("more")
    assert (last.done, last.truncated, last.won) == (True, False, True)
    assert EpisodeSession(Counter(), limit=9).max_steps == 3


def test_texts_of_the_three_forms() -> None:
    texts = {}
    for form in FORMS:
        session = EpisodeSession(Counter(), form=form)
        texts[form] = [session.reset("train/2").text, *(session.step("more").text for _ in range(2))]
    assert texts["observation"] == ["at 0", "at 1", "at 2"]
    assert texts["tools"] == [
        "Your task: Count to 2.\n\nat 0\n\nPossible actions:\n- more",
        "at 1\n\nPossible actions:\n- more",
        "at 2\n\nThe episode is over: won.",
    ]
    inputs = StepInputs("Say more.", "Count to 2.", "at 0", ["more"], 1, 3)
    prompts = PromptBuilder(TextFormat("full", progress=False), history=0)
    assert texts["chat"] == [
        prompts.act(inputs),
        "Step 2:\nat 1\n\nPossible actions:\n- more",
        "Step 3:\nat 2\n\nPossible actions:\n- more",
    ]
    assert "<action>" in texts["chat"][0]
    assert "look back" not in texts["chat"][0]  # nobody is asked to
    quiet = EpisodeSession(Counter(), form="tools", admissible=False)
    assert quiet.reset("train/2").text == "Your task: Count to 2.\n\nat 0"
    assert "Possible" not in EpisodeSession(Counter(), form="chat", admissible=False).reset(index=0).text


@pytest.mark.parametrize(
    ("text", "action", "defects"),
    [
        ("<action>more</action>", "more", ()),
        ("<think>So.</think><action> more </action>", "more", ()),
        ("So.</think><action>more</action>", "more", ()),
        ("<action>more", "more", ("action_not_closed",)),
        ("more", "", ("text_outside_tags", "no_action")),
        ("", "", ("no_action",)),
        ("<action>less</action><action>more</action>", "more", ("duplicate_action",)),
    ],
)
def test_the_action_in_an_answer(counting: EpisodeSession, text: str, action: str, defects: tuple) -> None:
    counting.reset("train/3")
    result = counting.answer(text)
    assert (result.action, result.defects, result.valid) == (action, defects, action == "more")


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_answer_is_a_step(text: str) -> None:
    session = EpisodeSession(Counter())
    session.reset("train/3")
    assert session.answer(text).step == 1


def test_a_session_is_opened_by_name() -> None:
    sokoban = open_session("sokoban", {"train_rooms": 2}, split="train")
    assert sokoban.env.settings.style == "grid"
    assert len(sokoban.panel) == 2
    assert open_session("sokoban", {"style": "relative"}).reset(index=0).observation.startswith("at:")
    assert open_session("webshop", ENVS["webshop"]).env.settings.style == "text"
    register_env("counter")(Counter)
    assert open_session("counter", {"ends": False}).reset(index=0).goal == "Count to 1."
    with pytest.raises(UnknownNameError, match="did you mean 'sokoban'"):
        open_session("sokobann")
    with pytest.raises(ConfigError, match="no setting 'max_step'"):
        open_session("sokoban", {"max_step": 3})
    with pytest.raises(ConfigError, match="form is 'tool'; did you mean 'tools'"):
        open_session("sokoban", form="tool")
    with pytest.raises(ConfigError, match="limit is 0"):
        open_session("sokoban", limit=0)


def test_the_example_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    assert run_section("A library that is not here")["result"].won


def test_an_adapter_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skyrl_gym", None)
    monkeypatch.delitem(sys.modules, "repro_rl.integrations.skyrl", raising=False)
    with pytest.raises(MissingDependencyError, match=r"skyrl_gym is not installed.*'\.\[skyrl\]'"):
        importlib.import_module("repro_rl.integrations.skyrl")
