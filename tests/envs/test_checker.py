"""check_env: silent on a good environment, one finding for each broken promise, never an exception."""

from __future__ import annotations

import itertools
from collections import UserList

import numpy as np
import pytest

from repro_rl.envs.checker import check_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.sokoban import SokobanEnv


def failing(env, **kwargs) -> dict[str, str]:
    return {check.name: check.detail for check in check_env(env, **kwargs) if not check.ok}


@pytest.mark.parametrize("style", ["relative", "grid", "coordinates"])
def test_sokoban_passes(style):
    checks = check_env(SokobanEnv(style=style), factory=lambda: SokobanEnv(style=style))
    assert [check.name for check in checks if not check.ok] == []
    assert len(checks) == 17
    assert all(check.detail for check in checks)


def test_without_a_factory_one_check_less():
    assert len(check_env(SokobanEnv(boxes=2), "validation", 3)) == 16


def test_another_instance_that_differs():
    detail = failing(SokobanEnv(), factory=lambda: SokobanEnv(seed=1))["fresh instance"]
    assert "digest" in detail
    assert (
        "another observation"
        in failing(SokobanEnv(), factory=lambda: SokobanEnv(style="grid"))["fresh instance"]
    )


class Changed(SokobanEnv):
    """Overrides info keys; ``...`` removes a key."""

    changes: dict[str, object] = {}  # noqa: RUF012

    def _info(self, valid, brief):
        info = super()._info(valid, brief)
        for key, value in self.changes.items():
            if value is ...:
                del info[key]
            else:
                info[key] = value
        return info


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_id", "x"), ("goal", ""), ("admissible", "up"), ("anchor", []), ("valid", 1), ("won", None),
        ("score", 2.0), ("progress", "half"), ("progress", float("nan")), ("brief", 3), ("anchor", ...),
        ("progress", ...),
    ],
)  # fmt: skip
def test_wrong_info(key, value):
    env = Changed()
    env.changes = {key: value}
    named = f"info without {key!r}" if value is ... else f"info[{key!r}]"
    assert named in failing(env)["info"]


def test_what_rollouts_accept_is_accepted():
    env = Changed()
    for changes in ({"progress": None}, {"score": np.float32(0.5)}):
        env.changes = changes
        assert failing(env) == {}

    class Tuples(SokobanEnv):
        def _info(self, valid, brief):
            info = super()._info(valid, brief)
            return {**info, "admissible": tuple(info["admissible"])}

    assert failing(Tuples()) == {}


def doubts(env) -> dict[str, str]:
    return {check.name: check.detail for check in check_env(env) if check.doubt}


def test_listed_actions_are_played():
    env = Changed()
    env.changes = {"admissible": ["up", "north"]}
    assert "info['admissible'] lists 'north', and step gives valid=False" in failing(env)["admissible"]
    env.changes = {"admissible": ["<your direction>"]}  # free text may be refused
    assert "admissible" not in failing(env)

    class Raising(Changed):
        changes = {"admissible": ["north"]}  # noqa: RUF012

        def step(self, action):
            if action == "north":
                raise KeyError(action)
            return super().step(action)

    assert (
        "action 'north' raised KeyError: 'north' (test_checker.py, line " in failing(Raising())["admissible"]
    )
    env.changes = {"admissible": []}
    assert "admissible" not in failing(env)
    assert "always empty" in doubts(env)["admissible"]


class Paying(SokobanEnv):
    """Pays ``win`` for a win and ``end`` where an episode is truncated."""

    win, end = 10.0, 0.0

    def step(self, action):
        observation, _, won, truncated, info = super().step(action)
        return observation, self.win * won + self.end * truncated, won, truncated, info


@pytest.mark.parametrize(
    ("win", "end", "ok", "words"),
    [
        (0.0, 0.0, False, "a win pays 0, an episode of empty actions 0: rewards must tell them apart"),
        (10.0, 10.0, False, "a win pays 10, an episode of empty actions 10"),
        (0.0, -1.0, True, "a win pays 0, an episode of empty actions -1; the other reward terms"),
        (1.0, 0.0, True, "sized for 10 a win"),
    ],
)
def test_a_win_pays_as_the_recipes_expect(win, end, ok, words):
    env = Paying()
    env.win, env.end = win, end
    assert words in (doubts(env) if ok else failing(env))["rewards"]
    assert ("rewards" in failing(env)) != ok


def test_state_keys_that_tell_nothing_apart_or_everything():
    env = Changed()
    for key, words in ((None, "always None: all states of a task count as one"), (0, "5 anchors for ")):
        env.changes = {"anchor": key}
        found = doubts(env)
        assert list(found) == ["anchors"]
        assert words in found["anchors"]
        assert "method.anchor_key=observation" in found["anchors"]

    class Counting(SokobanEnv):
        def _info(self, valid, brief):
            return {**super()._info(valid, brief), "anchor": self._steps}

    assert "changes with every step" in doubts(Counting())["anchors"]
    assert doubts(SokobanEnv()) == {}


def test_words_outside_the_vocabulary():
    class Terse(SokobanEnv):
        def vocabulary(self):
            return [word for word in super().vocabulary() if word not in ("up", "left")]

    detail = doubts(Terse())["words"]
    assert "lacks 2 words, such as " in detail
    assert "'up' (info['admissible'])" in detail

    class Silent(SokobanEnv):
        def vocabulary(self):
            return ()

    assert doubts(Silent()) == {}


def test_every_contract_violation_is_reported():
    class Random(SokobanEnv):
        counter = itertools.count()

        def step(self, action):
            observation, *rest = super().step(action)
            return f"{observation} {next(self.counter)}", *rest

    class Raising(SokobanEnv):
        def step(self, action):
            if action not in ("up", "down", "left", "right"):
                raise ValueError("what?")
            return super().step(action)

    class Generous(Changed):
        changes = {"valid": True}  # noqa: RUF012

    class Lost(SokobanEnv):
        def expert(self):
            return "up"

    class Silent(SokobanEnv):
        def expert(self):
            return None

    class Falling(SokobanEnv):
        def _progress(self):
            return 1.0 - super()._progress()

    class Endless(SokobanEnv):
        def step(self, action):
            observation, reward, terminated, _, info = super().step(action)
            self._over = False
            return observation, reward, terminated, False, info

    class Restless(Endless):
        def expert(self):
            return "up"

    class Drifting(SokobanEnv):
        counter = itertools.count()

        def panel(self, split):
            ids = super().panel(split).ids
            return TaskPanel("sokoban", split, ids, tuple(f"{next(self.counter)}" for _ in ids))

    class Trusting(SokobanEnv):
        def room(self, task_id):
            return super().room(task_id if "/" in task_id else self.panel("test").ids[0])

    assert "another observation" in failing(Random())["deterministic"]
    assert "ValueError" in failing(Raising())["bad actions"]
    assert "valid=True" in failing(Generous())["bad actions"]
    assert "without a win" in failing(Lost())["expert wins"]
    assert "no plan" in failing(Silent())["expert wins"]
    assert "falls" in failing(Falling())["progress"]
    assert "truncated=False at step 15" in failing(Endless())["truncation"]
    assert "did not end within 30 steps; max_steps is 15" in failing(Restless())["expert wins"]
    assert "digest" in failing(Drifting())["panel"]
    assert "unknown task is accepted" in failing(Trusting())["unknown names"]


def test_never_raises():
    class Hopeless(SokobanEnv):
        def panel(self, split):
            raise RuntimeError("no panel today")

    checks = check_env(Hopeless(), factory=lambda: 1 / 0)
    assert len(checks) == 17
    assert not any(check.ok for check in checks)
    assert all(
        "no panel today" in c.detail or "ZeroDivision" in c.detail
        for c in checks
        if c.name != "unknown names"
    )
    assert failing(SokobanEnv(test_rooms=0))["panel"] == "the panel of split 'test' is empty"


class Odd(SokobanEnv):
    """Its step returns what ``change`` makes of the right result."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def step(self, action):
        return self.change(super().step(action))


def _raise(result):
    raise ValueError("the door is stuck")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda result: result[:4], "step() must return (observation, reward, terminated, truncated, info)"),
        (lambda result: None, "not NoneType"),
        (lambda result: (*result[:4], None), "an info of NoneType; it must be a dict"),
        (lambda result: (*result[:4], {}), "an info without 'goal'"),
        (lambda result: ("wall \ud83e", *result[1:]), "a lone surrogate '\\ud83e' at position 5"),
        (_raise, "raised ValueError: the door is stuck (test_checker.py, line "),
    ],
)  # fmt: skip
def test_every_check_says_what_step_does_wrong(change, words):
    found = failing(Odd(change), factory=lambda: Odd(change))
    for name in ("info", "deterministic", "fresh instance", "bad actions", "expert wins", "truncation"):
        assert words in found[name], name


def test_all_missing_keys_are_named_at_once():
    env = Changed()
    env.changes = {"task_id": ..., "goal": ..., "score": ..., "progress": ...}
    found = failing(env)
    assert found["info"] == "reset() returned an info without 'task_id', 'goal', 'score', 'progress'"
    assert "reset() returned an info without 'goal', 'score', 'progress'." in found["reset and step"]
    env.changes = {"goal": 3, "score": 2}
    assert "info['goal'] is 3; it must be text, and info['score'] is 2; it must be a" in failing(env)["info"]


def test_the_checker_demands_more_than_rollouts_and_the_same_nowhere_twice():
    """Every value here passes the contract's own tests, and only the check of infos says something."""
    env = Changed()
    env.changes = {"goal": " ", "brief": 3, "task_id": "another", "score": True, "progress": False}
    env.changes["admissible"] = UserList(["up"])
    found = failing(env)
    assert "reset and step" not in found
    for words in (
        "info['task_id'] is 'another'; it must be the task asked for ('",
        "info['goal'] is ' '; it must be a sentence",
        "info['admissible'] is ['up']; it must be a list or a tuple",
        "info['score'] is True; it must be a number, not True or False",
        "info['progress'] is False; it must be a number, not True or False",
        "info['brief'] is 3; it must be text",
    ):
        assert found["info"].count(words) == 1, words
    assert found["info"].count("it must be") == 6


class Split(SokobanEnv):
    """Panels with the split, ids and contents that ``change`` makes of the right ones."""

    def __init__(self, change):
        super().__init__(train_rooms=6, validation_rooms=4, test_rooms=4)
        self.change = change

    def panel(self, split):
        panel = super().panel(split)
        return TaskPanel(panel.env, *self.change(self, split, panel))


def test_a_panel_is_of_the_split_that_was_asked_for():
    env = Split(lambda env, split, panel: ("train", panel.ids, panel.contents))
    assert failing(env)["panel"] == (
        "panel('test') says that its split is 'train'; give TaskPanel the one asked for"
    )


def test_tasks_of_another_split():
    def twice(env, split, panel):
        """Two tasks of train in test, under ids of its own."""
        train = SokobanEnv.panel(env, "train")
        return (
            split,
            panel.ids,
            (*panel.contents[:-2], *train.contents[:2]) if split == "test" else panel.contents,
        )

    assert doubts(Split(lambda env, split, panel: (split, panel.ids, panel.contents))) == {}
    found = doubts(Split(twice))
    assert list(found) == ["splits"]
    assert found["splits"].startswith("'train' has 2 of the 4 tasks of 'test' too, with the same content (")

    def renamed(env, split, panel):
        """A task of train in test, whose contents say nothing of it."""
        ids = (SokobanEnv.panel(env, "train").ids[1], *panel.ids[1:]) if split == "test" else panel.ids
        return split, ids, tuple(f"{split} {number}" for number, _ in enumerate(ids))

    assert "stands for one task in 'test' and another in 'train'" in failing(Split(renamed))["splits"]

    class Copied(Split):
        """The same, under an id of its own."""

        def room(self, task_id):
            return super().room(task_id.replace("test/0", "train/1"))

    words = "test/0 of 'test' begins as gen-6x6-b1-w1-3-s4-10-seed0/train/1 of 'train', with the same goal"
    env = Copied(lambda env, split, panel: (split, panel.ids, tuple(f"{task} of mine" for task in panel.ids)))
    assert words in doubts(env)["splits"]
    assert check_env(SokobanEnv(), "train")[1].ok


def test_actions_that_no_answer_can_hold():
    env = Changed()
    for actions, words in (
        (["p4", "up"], "with prompt.style=compact no answer can hold 1 action ('p4'): 'p50 p4' is read as"),
        (["p4", "up"], "duplicate_progress, no_action; name it differently, or set prompt.style=full"),
        (
            ["turn\nb", "up", " c"],
            "blanks and line breaks of 2 actions ('turn\\nb', ' c'): compact answers have",
        ),
        (["say <think>", "up"], "with prompt.style=full no answer can hold 1 action ('say <think>')"),
    ):
        env.changes = {"admissible": actions}
        assert words in doubts(env)["answers"]
    env.changes = {"admissible": ["up", "", "p2 <action>"]}
    assert "no answer can hold 2 actions ('', 'p2 <action>')" in failing(env)["answers"]

    class Tagged(SokobanEnv):
        def expert(self):
            return "<action>up</action>"

    assert "('<action>up</action>')" in doubts(Tagged())["answers"]


class Reading(SokobanEnv):
    """Its reader answers what ``answer`` makes of the expert's action."""

    answer = staticmethod(lambda action: action)

    def reader(self, seed=0):
        return self.answer(self.expert())


def test_the_reader_is_played():
    env, count = Reading(), itertools.count()
    assert [check.detail for check in check_env(env) if check.name == "reader"] == [
        "wins 5 of 5, and answers alike with the same seed"
    ]
    env.answer = lambda action: None
    assert doubts(env) == {"reader": "reader() wins none of 5 tasks: demos.agent=reader would show no win"}
    env.answer = lambda action: 3
    assert "reader() answers 3; it must be text" in failing(env)["reader"]
    env.answer = lambda action: {}[action]
    assert "raised KeyError" in failing(env)["reader"]
    env.answer = lambda action: f"wait {next(count)}"
    assert "with the same seed reader() answers differently" in failing(env)["reader"]
