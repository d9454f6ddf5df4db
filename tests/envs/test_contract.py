"""Environments that break their contract fail one episode."""

from __future__ import annotations

import re
from typing import Any

import gymnasium
import numpy as np
import pytest

from repro_rl.config import DemosSection
from repro_rl.demos import collect_demos
from repro_rl.demos.collect import play
from repro_rl.demos.mistakes import Agent, demonstrate, play_with_mistakes
from repro_rl.envs import ENVS, SokobanEnv, TextEnv, make, register_env
from repro_rl.envs.contract import checked_reset, checked_step
from repro_rl.errors import ConfigError, DataError, EnvError, TaskError
from repro_rl.rollout import EnvPool, RolloutRequest
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.counts import common, error_reasons
from support.episodes import SOKOBAN, run
from support.scripted import ScriptedPolicy

INFO = {
    "goal": "win", "admissible": ["a"], "anchor": ("s", 1), "valid": True, "won": False, "score": 0.5,
    "progress": None,
}  # fmt: skip

KEYS = "'admissible', 'anchor', 'valid', 'won', 'score', 'progress'"  # all that are missing


def test_what_keeps_the_contract_passes() -> None:
    assert checked_reset(("seen", INFO)) == ("seen", INFO)
    numpys = {**INFO, "won": np.bool_(True), "score": np.float32(1), "progress": np.float64(0.5)}
    assert checked_step((np.str_("x"), np.float32(1), np.bool_(True), False, numpys))[2] is True
    assert checked_step(("x", 0, False, True, {**INFO, "admissible": (), "brief": "b"}))[1] == 0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"step\(\) must return .*, not NoneType"),
        (("x", 0.0, False, INFO), "not tuple of 4"),
        ((b"x", 0.0, False, False, INFO), "observation of bytes; it must be text"),
        (
            ("a\ud800b", 0.0, False, False, INFO),
            r"an observation with a lone surrogate '\\ud800' at position 1",
        ),
        (("x", "1", False, False, INFO), "the reward '1'; it must be a finite number"),
        (("x", float("nan"), False, False, INFO), "the reward nan"),
        (("x", 0.0, None, False, INFO), "terminated=None"),
        (("x", 0.0, False, "no", INFO), "truncated='no'"),
        (("x", 0.0, False, False, None), "an info of NoneType"),
        (("x", 0.0, False, False, {}), "an info without 'goal'"),
        *(
            (("x", 0.0, False, False, {**INFO, key: value}), re.escape(f"info['{key}']"))
            for key, value in (
                ("goal", 3),
                ("goal", "find \udcff"),
                ("admissible", ["up", "go \ud83d"]),
                ("brief", "\udc00"),
                ("admissible", "up"),
                ("admissible", [1]),
                ("anchor", ["list"]),
                ("anchor", (["list"],)),
                ("valid", 1),
                ("won", None),
                ("score", float("inf")),
                ("score", "1"),
                ("score", -1.0),
                ("progress", 50),
                ("progress", float("nan")),
                ("progress", "half"),
            )
        ),
    ],
)
def test_what_breaks_it_is_named(returned: Any, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        checked_step(returned)


@pytest.mark.parametrize(("returned", "message"), [("x", "not str"), (("x", {"goal": "g"}), "'admissible'")])
def test_so_at_a_reset(returned: Any, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        checked_reset(returned)


class Broken(SokobanEnv):
    """The second task of the panel breaks, in the way that ``how`` says."""

    def __init__(self, how: str, **settings: Any):
        super().__init__(**settings)
        self.how, self.bad = how, False

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed, options=options)
        self.bad = info["task_id"] == self.panel("train").ids[1]
        if self.bad and self.how == "reset":
            raise RuntimeError("no such room")
        if self.bad and self.how == "reset types":
            return observation, {"goal": info["goal"]}
        return observation, info

    def step(self, action: str) -> Any:
        if self.bad and self.how == "endless":
            return "on and on", 0.0, False, False, INFO
        observation, reward, terminated, truncated, info = super().step(action)
        if not self.bad:
            return observation, reward, terminated, truncated, info
        if self.how == "step":
            raise ValueError("lost")
        return observation, "much", terminated, truncated, info


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("reset", "RuntimeError at step 0: no such room"),
        ("reset types", f"EnvError at step 0: reset() returned an info without {KEYS}."),
        ("step", "ValueError at step 1: lost"),
        ("step types", "EnvError at step 1: step() returned the reward 'much'; it must be a finite number."),
        ("endless", "it did not end within 12 steps; max_steps is 6"),
    ],
)
def test_one_episode_fails_and_no_other(how: str, error: str) -> None:
    register_env("broken")(Broken)
    pool = EnvPool("broken", {**SOKOBAN, "max_steps": 6, "solution": [2, 5], "how": how})
    tasks = pool.first.panel("train").ids[:3]
    played = run(pool, [RolloutRequest(task, 0) for task in tasks], ScriptedPolicy("p30 wait"))
    assert [t.failed for t in played] == [False, True, False]
    assert played[1].error == error
    assert common(error_reasons(played)) == f"{error} (1 time)"


@pytest.mark.parametrize("how", ["reset", "step types", "endless"])
def test_such_episodes_are_no_demonstrations(how: str) -> None:
    env = Broken(how, **SOKOBAN)
    tasks = env.panel("train").ids[:4]
    section = DemosSection(
        expert=3, wandering=1.0, winning=2, failing=2, agent="planner", mistakes=(0.0, 0.1)
    )
    with pytest.warns(UserWarning, match=r"episodes broke off, left out: .*(no such room|much|not end)"):
        experts, labelled = collect_demos(env, tasks, section, seed=0)
    assert len(labelled) == 4
    assert not any(t.failed or t.task_id == tasks[1] for t in (*experts, *labelled))


def test_an_environment_that_always_breaks_is_named() -> None:
    env = Broken("step", **SOKOBAN)
    section = DemosSection(expert=3, winning=0, failing=0, agent="planner")
    with pytest.raises(DataError, match="the environment breaks off: ValueError at step 1: lost"):
        collect_demos(env, [env.panel("train").ids[1]], section, seed=0)


@pytest.mark.parametrize("agent", ["planner", "reader"])
def test_an_expert_s_episode_has_the_limit_of_a_rollout(agent: Agent) -> None:
    env = Broken("endless", **{**SOKOBAN, "max_steps": 6, "solution": [2, 5]})
    task = env.panel("train").ids[1]
    rng = np.random.default_rng(0)
    for episode in (
        play(env, task, 0.0, rng),
        demonstrate(env, task, agent, 0.2, 0),
        play_with_mistakes(env, task, agent, 0.5, 0),
    ):
        assert episode.error == "it did not end within 12 steps; max_steps is 6"
        assert len(episode.steps) == 12


class BreaksAgain(SokobanEnv):
    """Plays one episode; what comes after it breaks in the way that ``how`` says."""

    def __init__(self, how: str, **settings: Any):
        super().__init__(**settings)
        self.how, self.resets = how, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.resets += 1
        if self.resets > 1 and self.how == "reset":
            raise ConnectionError("no server")
        if self.resets > 1 and self.how == "data":
            raise DataError("the rooms are gone")
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> Any:
        result = super().step(action)
        if self.resets > 1 and self.how == "step":
            raise ConnectionError("server gone")
        return (*result[:4], {}) if self.resets > 1 and self.how == "step types" else result


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("reset", "played again, ConnectionError at step 0: no server"),
        ("step", "played again, ConnectionError at step 1: server gone"),
        ("step types", f"played again, EnvError at step 1: step() returned an info without 'goal', {KEYS}."),
    ],
)
def test_an_episode_that_breaks_when_played_again_fails_alone(how: str, error: str) -> None:
    env = BreaksAgain(how, **SOKOBAN)
    episode = demonstrate(env, env.panel("train").ids[0], "planner", 0.9, 0)
    assert any(step.mistake for step in episode.steps)
    assert episode.error == error
    assert episode.failed


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("reset", "The environment failed: ConnectionError at step 0: no server"),
        ("step", "The environment failed: ConnectionError at step 1: server gone"),
        ("step types", r"step\(\) returned an info without 'goal'"),
    ],
)
def test_a_demonstration_replayed_for_its_prompts_names_what_broke(how: str, error: str) -> None:
    env = BreaksAgain(how, **SOKOBAN)
    episode = play(env, env.panel("train").ids[0], 0.0, np.random.default_rng(0))
    with pytest.raises(EnvError, match=error):
        list(replayed(env, episode))


def test_broken_data_of_an_episode_played_again_concerns_all() -> None:
    env = BreaksAgain("data", **SOKOBAN)
    with pytest.raises(DataError, match="the rooms are gone"):
        demonstrate(env, env.panel("train").ids[0], "planner", 0.9, 0)


@pytest.mark.parametrize("limit", [0, -1])
def test_an_environment_without_a_step_limit_is_refused(limit: int) -> None:
    class Unlimited(SokobanEnv):
        def __init__(self, **settings: Any):
            super().__init__(**settings)
            self.max_steps = limit

    with ENVS.isolated():
        register_env("unlimited")(Unlimited)
        with pytest.raises(
            ConfigError, match=f"'unlimited': max_steps of Unlimited is {limit}; it must be 1 or more"
        ):
            EnvPool("unlimited", SOKOBAN).take(1)
    env = Unlimited(**SOKOBAN)  # not by its name: an episode still ends
    env.step = lambda action: ("on", 0.0, False, False, INFO)  # type: ignore[method-assign]
    episode = play(env, env.panel("train").ids[0], 0.0, np.random.default_rng(0))
    assert episode.error == f"it did not end within 1 step; max_steps is {limit}"


def test_what_is_no_environment_is_refused_where_it_is_made() -> None:
    class Plain(gymnasium.Env[str, str]):
        pass

    class Panelless(TextEnv):
        max_steps = 5

        def expert(self) -> str | None:
            return None

    with ENVS.isolated():
        for name, cls, lacking in (("plain", Plain, "panel, max_steps"), ("panelless", Panelless, "panel")):
            ENVS.register(name)(cls)  # type: ignore[arg-type]
            with pytest.raises(
                ConfigError, match=f"'{name}': {cls.__name__} lacks {lacking}. Derive it from"
            ):
                make(name)


def test_an_unknown_task_concerns_all() -> None:
    with pytest.raises(TaskError):
        run(EnvPool("sokoban", SOKOBAN), [RolloutRequest("nowhere/1", 0)], ScriptedPolicy("p30 up"))
