"""The ``words`` style of ALFWorld: short names for commands, closed words, memory, and nothing hidden."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import repro_rl
from repro_rl.envs.alfworld import AlfworldEnv
from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.game import Game, Goal
from repro_rl.envs.alfworld.words import vocabulary

VOCABULARY = frozenset(vocabulary())
# A study: raw ids sort upwards, printed numbers count downwards.
RECEPTACLES = ("Cabinet 2", "Cabinet 1", "Desk 1", "Drawer 1", "Shelf 2", "Shelf 1")
OBJECTS = {"Book 1": 3, "Cup 3": 0, "Cup 2": 2, "Cup 1": 1, "DeskLamp 1": 2, "Pen 1": 2}  # object: receptacle


def study(goal: Goal) -> Game:
    """Two cabinets and a drawer, closed; a desk; two shelves, empty. Each has its own location."""
    kinds, things = ([name.split()[0] for name in names] for names in (RECEPTACLES, OBJECTS))
    nothing: frozenset[int] = frozenset()
    flags = ("cleanable", "heatable", "coolable", "sliceable", "isReceptacleObject")
    states = ("isClean", "isHot", "isCool", "isSliced", "isToggled")
    return Game(
        name="study",
        task="Your task is to: do it.",
        goal=goal,
        start=0,
        receptacles=tuple(map(str.lower, RECEPTACLES)),
        receptacle_types=tuple(kinds),
        receptacle_locations=(1, 2, 3, 4, 5, 6),
        location_names=tuple(f"loc {i}" for i in range(7)),
        openable=frozenset({0, 1, 3}),
        opened=nothing,
        objects=tuple(map(str.lower, OBJECTS)),
        object_types=tuple(things),
        object_locations=tuple(frozenset({r + 1}) for r in OBJECTS.values()),
        inside=tuple(frozenset({r}) for r in OBJECTS.values()),
        contents=tuple(() for _ in things),
        flags={
            **dict.fromkeys((*flags, *states), nothing),
            "pickupable": frozenset(o for o, kind in enumerate(things) if kind != "DeskLamp"),
            "toggleable": frozenset(o for o, kind in enumerate(things) if kind == "DeskLamp"),
        },
        fits=frozenset((kind, thing) for kind in kinds for thing in things),
    )


def worded(games: int = 30, **more: Any) -> AlfworldEnv:
    env = repro_rl.make("alfworld", games=games, style="words", **more)
    assert isinstance(env, AlfworldEnv)
    return env


def begin(env: AlfworldEnv, game: Game, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Reset to a game that no source has."""
    monkeypatch.setattr(env.source, "game", lambda task: game)
    return env.reset(options={"task": "train/x/y"})


def follow(env: AlfworldEnv, task: str, script: Sequence[tuple[str, str]]) -> None:
    """Execute (command, expected observation) pairs; every observation begins with ``task``."""
    for action, expected in script:
        observation, _, _, _, info = env.step(action)
        assert observation == f"{task} {expected}", action
        assert info["valid"] == (not expected.startswith("failed"))
        assert {*observation.split()} <= VOCABULARY


def test_the_expert_wins_with_short_names_only() -> None:
    env = worded(120, max_steps=50)
    steps = []
    for task in env.panel("train"):
        observation, info = env.reset(options={"task": task})
        count = 0
        while (action := env.expert()) is not None:
            assert action in info["admissible"], (task, action)
            assert {*observation.split(), *info["admissible"]} <= VOCABULARY, task
            assert observation.endswith(info["brief"]) or f" {info['brief']} " in observation
            observation, _, terminated, _, info = env.step(action)
            assert info["valid"]
            count += 1
        assert terminated, task
        assert info["won"]
        steps.append(count)
    assert len(steps) == 120
    assert max(steps) <= 50


def test_what_is_admissible_is_what_works() -> None:
    env, rng = worded(), random.Random(0)
    names = sorted(word for word in VOCABULARY if ":" not in word)
    for task in env.panel("train").ids[:20]:
        _, info = env.reset(options={"task": task})
        for _ in range(20):
            allowed, action = info["admissible"], rng.choice(names)
            if rng.random() < 0.7:
                action = rng.choice(allowed)
            observation, _, terminated, _, info = env.step(action)
            assert info["valid"] == (action in allowed), (task, action)
            assert (" failed " in observation) != info["valid"]
            assert {*observation.split()} <= VOCABULARY
            if terminated:
                break


def test_an_episode_with_two_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """``known`` names receptacles seen before; the second object goes to the receptacle of the first."""
    env = worded()
    begin(env, study(Goal("two", "Cup", "Shelf")), monkeypatch)
    follow(
        env,
        "do:two want:cup to shelf",
        [
            ("look", "hold:nothing at:middle new cabinet desk drawer shelf"),
            ("shelf", "hold:nothing at:shelf here:target new cabinet desk drawer shelf"),
            ("take", "failed hold:nothing at:shelf here:target new cabinet desk drawer shelf"),
            ("desk", "hold:nothing at:desk here:wanted here:other known:desk new cabinet drawer shelf"),
            ("grab", "hold:other at:desk here:wanted known:desk new cabinet drawer shelf"),
            ("put", "hold:nothing at:desk here:wanted here:other known:desk new cabinet drawer shelf"),
            ("drawer", "hold:nothing at:drawer closed known:desk new cabinet drawer shelf"),
            ("wanted", "hold:nothing at:desk here:wanted here:other known:desk new cabinet drawer shelf"),
            ("take", "hold:ready at:desk here:other new cabinet drawer shelf"),
            ("wanted", "failed hold:ready at:desk here:other new cabinet drawer shelf"),
            ("shelf", "hold:ready at:shelf here:target new cabinet drawer"),
            ("put", "hold:nothing at:shelf here:target done1 new cabinet drawer"),
            ("cabinet", "hold:nothing at:cabinet closed done1 new cabinet drawer"),
            ("open", "hold:nothing at:cabinet here:wanted done1 known:cabinet new cabinet drawer"),
            ("cabinet", "hold:nothing at:cabinet closed done1 known:cabinet new cabinet drawer"),
            ("wanted", "hold:nothing at:cabinet here:wanted done1 known:cabinet new cabinet drawer"),
            ("take", "hold:ready at:cabinet done1 new cabinet drawer"),
        ],
    )
    assert env.play is not None
    assert env.play.game.receptacles[env.play.at - 1] == "cabinet 1", "low numbers first"
    env.step("shelf")
    assert env.play.game.receptacles[env.play.at - 1] == "shelf 2", "where the first one is"
    _, _, terminated, _, info = env.step("put")
    assert terminated
    assert info["won"]


def test_an_episode_with_the_lamp(monkeypatch: pytest.MonkeyPatch) -> None:
    env = worded()
    observation, _ = begin(env, study(Goal("look", "Book", "DeskLamp")), monkeypatch)
    task = "do:look want:book to desklamp"
    assert observation == f"{task} hold:nothing at:middle new cabinet desk drawer shelf"
    follow(
        env,
        task,
        [
            ("desk", "hold:nothing at:desk here:other here:lamp lamp:desk new cabinet drawer shelf"),
            ("drawer", "hold:nothing at:drawer closed lamp:desk new cabinet drawer shelf"),
            ("open", "hold:nothing at:drawer here:wanted known:drawer lamp:desk new cabinet shelf"),
            ("take", "hold:ready at:drawer lamp:desk new cabinet shelf"),
            ("use", "failed hold:ready at:drawer lamp:desk new cabinet shelf"),
            ("lamp", "hold:ready at:desk here:other here:lamp lamp:desk new cabinet shelf"),
        ],
    )
    assert env.step("use")[-1]["won"]


def test_full_commands_are_accepted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    env = worded()
    begin(env, study(Goal("place", "Cup", "Shelf")), monkeypatch)
    follow(
        env,
        "do:place want:cup to shelf",
        [
            ("go to cabinet 2", "hold:nothing at:cabinet closed new cabinet desk drawer shelf"),
            ("inventory", "hold:nothing at:cabinet closed new cabinet desk drawer shelf"),
            ("open cabinet 1", "failed hold:nothing at:cabinet closed new cabinet desk drawer shelf"),
            (
                "go to desk 1",
                "hold:nothing at:desk here:wanted here:other known:desk new cabinet drawer shelf",
            ),
            ("take cup 2 from desk 1", "hold:ready at:desk here:other new cabinet drawer shelf"),
            ("go to cabinet 2", "hold:ready at:cabinet closed new cabinet drawer shelf"),
            ("go to shelf 2", "hold:ready at:shelf here:target new cabinet drawer shelf"),
            ("take  it", "failed hold:ready at:shelf here:target new cabinet drawer shelf"),
        ],
    )
    assert env.step("put cup 2 in/on shelf 2")[-1]["won"], "in the other version's words"


def hidden_swap(game: Game) -> tuple[Game, list[str]] | None:
    """``game`` with the contents of two closed receptacles swapped, of which one holds a goal object, and
    the names of the two; None when there are none (or it would then be won)."""
    closed = sorted(game.openable - game.opened)
    goal_objects = {o for o, kind in enumerate(game.object_types) if kind == game.goal.object_type}
    for one in closed:
        for two in closed:
            if game.receptacle_locations[one] == game.receptacle_locations[two] or not any(
                game.inside[o] == {one} for o in goal_objects
            ):
                continue
            swap = {one: two, two: one}
            inside = tuple(frozenset(swap.get(r, r) for r in where) for where in game.inside)
            locations = tuple(frozenset(game.receptacle_locations[r] for r in where) for where in inside)
            other = replace(game, inside=inside, object_locations=locations, plans={})
            if not Play(other).won():
                return other, [game.receptacles[one], game.receptacles[two]]
    return None


def test_hidden_state_is_not_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two games that differ only in what two closed receptacles hold look the same until one is opened."""
    envs, rng = (worded(90), worded(90)), random.Random(0)
    games = states = different = 0
    for task in envs[0].panel("train"):
        game = envs[0].source.game(task)
        if (swapped := hidden_swap(game)) is None:
            continue
        other, unopened = swapped
        games += 1

        def both(game: Game = game, other: Game = other) -> list[tuple[str, dict[str, Any]]]:
            with monkeypatch.context() as patch:
                return [begin(env, one, patch) for env, one in zip(envs, (game, other), strict=True)]

        seen = both()
        for _ in range(40):
            words, play = envs[0].words, envs[0].play
            assert words is not None
            assert play is not None
            allowed = seen[0][1]["admissible"] + play.admissible()
            full = {a: words.full_command(a).removeprefix("open ") for a in allowed}
            action = rng.choice([a for a in allowed if full[a] not in unopened])
            steps = [env.step(action) for env in envs]
            seen = [(step[0], step[-1]) for step in steps]
            assert seen[0][0] == seen[1][0]
            for key in ("brief", "admissible", "valid"):
                assert seen[0][1][key] == seen[1][1][key]
            states += 1
            if steps[0][2] or steps[1][2]:
                break
        for name in unopened:
            both()
            looks = [(env.step(f"go to {name}")[0], env.step(f"open {name}")[0]) for env in envs]
            assert looks[0][0] == looks[1][0]
            different += looks[0][1] != looks[1][1]
    assert games >= 10
    assert states >= 10 * games
    assert different >= games, "what is in there can be told when it is open"
