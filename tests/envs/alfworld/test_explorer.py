"""The expert that explores: hand-worked answers, no hidden knowledge, wins from any state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import repro_rl
from repro_rl.demos.mistakes import play_with_mistakes
from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.explorer import Explorer
from repro_rl.envs.alfworld.game import Game
from support.alfworld import kitchen


def played(game: Game, *first: str, seed: int = 0, version: str = "0.4") -> list[str]:
    """The explorer's commands until the game is won, after the commands ``first``."""
    play, explorer = Play(game, version), Explorer(seed)
    explorer.read(play.intro())
    answers: list[str] = []
    for command in first:
        explorer.read(play.act(play.normalized(command)) or "Nothing happens.")
    while not play.won() and len(answers) < 50:
        command = explorer.next(play.admissible())
        assert command is not None
        answers.append(command)
        text = play.act(play.normalized(command))
        assert text is not None, f"{command} is not possible"
        explorer.read(text)
    assert play.won()
    return answers


# The kitchen: apple 2 and a knife on the dining table, apple 1 in the closed cabinet 2; cool an apple and put
# it into a cabinet. 30 of 100 dining tables hold an apple; 40 of 100 fridges do, but they take two commands.
COOLED = ["go to fridge 1", "cool apple 2 with fridge 1"]
DELIVERED = ["go to cabinet 1", "open cabinet 1", "move apple 2 to cabinet 1"]


def test_it_looks_into_the_most_plausible_place_first() -> None:
    fetched = ["go to diningtable 1", "take apple 2 from diningtable 1"]
    assert played(kitchen()) == [*fetched, *COOLED, *DELIVERED]


@pytest.mark.parametrize("version", ["0.4", "0.3"])
def test_a_wrong_object_is_put_down_where_it_is_possible(version: str) -> None:
    stolen = ["go to diningtable 1", "take knife 1 from diningtable 1"]
    back = "move knife 1 to diningtable 1" if version == "0.4" else "put knife 1 in/on diningtable 1"
    taken = "take apple 2 from diningtable 1"
    assert played(kitchen(), *stolen, version=version)[:2] == [back, taken]
    # elsewhere nothing takes a knife, so it is carried back to where it came from
    away = played(kitchen(), *stolen, "go to fridge 1", version=version)
    assert away[:3] == ["go to diningtable 1", back, taken]


def test_it_goes_on_after_failures_and_detours() -> None:
    fetched = ["go to diningtable 1", "take apple 2 from diningtable 1"]
    detour = [*fetched, "go to shelf 9", "take apple 1 from cabinet 2", "go to cabinet 2", "open cabinet 2"]
    assert played(kitchen(), *detour) == [*COOLED, "go to cabinet 2", "move apple 2 to cabinet 2"]
    # what was put into the cabinet too early is taken out again, or another one in sight is used
    early = played(kitchen(), *detour, "move apple 2 to cabinet 2")
    assert early[0].startswith("take apple ")
    assert early[1] == "go to fridge 1"


def test_at_a_closed_place_it_weighs_opening_against_other_places() -> None:
    """The fridge takes one command then, so its 40 of 100 come before the table's 30."""
    assert played(kitchen(), "go to fridge 1")[0] == "open fridge 1"
    assert played(kitchen(), "go to cabinet 2")[0] == "go to diningtable 1"


def test_its_answers_depend_on_what_was_seen_alone() -> None:
    """Two games that differ in a closed cabinet: as long as the texts are equal, so are the answers."""
    game = kitchen()
    games = []
    for name in ("cabinet 1", "cabinet 2"):
        place = game.receptacles.index(name)
        apples = [index for index, kind in enumerate(game.object_types) if kind == "Apple"]
        inside, locations = list(game.inside), list(game.object_locations)
        for apple in apples:
            inside[apple] = frozenset({place})
            locations[apple] = frozenset({game.receptacle_locations[place]})
        games.append(replace(game, inside=tuple(inside), object_locations=tuple(locations)))
    plays, explorers = [Play(g) for g in games], [Explorer(), Explorer()]
    printed, equal = [play.intro() for play in plays], 0
    while printed[0] == printed[1]:
        equal += 1
        for explorer, text in zip(explorers, printed, strict=True):
            explorer.read(text)
        one, other = (e.next(play.admissible()) for e, play in zip(explorers, plays, strict=True))
        assert one == other
        printed = [play.act(str(one)) or "" for play in plays]
    assert equal > 5  # table, fridge, sink and the first cabinet were looked into


def test_the_seed_breaks_ties() -> None:
    env = repro_rl.make("alfworld", games=40)
    ways = set()
    for seed in range(6):
        env.reset(options={"task": env.panel("train").ids[3]})
        commands, ended = [], False
        while not ended:
            command = env.reader(seed)
            commands.append(command)
            _, _, terminated, truncated, info = env.step(str(command))
            ended = terminated or truncated
        assert info["won"]
        ways.add(tuple(commands))
    assert len(ways) > 1


@pytest.mark.parametrize("style", ["text", "words"])
@pytest.mark.parametrize("mistakes", [0.0, 0.3])
def test_it_wins_generated_households(style: str, mistakes: float) -> None:
    env = repro_rl.make("alfworld", games=60, style=style)
    episodes = [
        play_with_mistakes(env, task, "reader", mistakes, seed)
        for seed, task in enumerate(env.panel("train").ids)
    ]
    assert np.mean([t.won for t in episodes]) >= 0.95
    if not mistakes:
        assert all(step.valid for t in episodes for step in t.steps)
        assert np.mean([len(t.steps) for t in episodes]) < 13  # it does search, but not everywhere


def test_it_wins_official_games_from_the_start_and_from_anywhere(official: list[Path]) -> None:
    folder = official[0].parents[4]
    env = repro_rl.make("alfworld", data=str(folder))
    tasks = env.panel("train").ids[::5]
    assert np.mean([play_with_mistakes(env, task, "reader", 0.0, i).won for i, task in enumerate(tasks)]) == 1
    won = []
    for number, task in enumerate(tasks):
        rng = np.random.default_rng(number)
        _, info = env.reset(options={"task": task})
        ended = False
        for step in range(50):
            choices = info["admissible"]
            action = choices[int(rng.integers(len(choices)))] if step < 20 else str(env.reader(number))
            _, _, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            if ended:
                break
        assert ended
        won.append(info["won"])
    assert np.mean(won) >= 0.95


def test_a_task_it_cannot_read_has_no_answer() -> None:
    explorer = Explorer()
    explorer.read("You are in the middle of a room.\n\nYour task is to: tidy up.")
    assert explorer.next(["look"]) is None


def test_without_an_episode_there_is_no_answer() -> None:
    assert repro_rl.make("alfworld", games=10).reader() is None
