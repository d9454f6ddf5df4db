"""Reading game files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repro_rl.envs.alfworld.game import Game, game_from, read_game
from repro_rl.errors import DataError
from support.alfworld import GRAMMAR, KITCHEN, kitchen


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(atLocation agent1 loc_bar_0)", "", "the agent is at 0 locations"),
        ("(receptacleAtLocation Fridge_bar_1 loc_bar_3)", "", "'Fridge_bar_1' has no location"),
        ("(objectType Bowl_bar_1 BowlType)", "", "names 'Bowl|1', which has no type"),
        ("(isCool ?o)", "(isCool ?o) (isHot ?o)", "none of the six official forms"),
        ("(openable Fridge_bar_1)", "(openable Fridge_bar_1 x)", "openable has 2 arguments, not 1"),
        ("(:init", "(:start", "has no :init section"),
        ("(inReceptacle ?o ?r)))))))", "(inReceptacle ?o ?r)", "ends before its brackets close"),
        ("(:objects", ") (:objects", "bracket"),
    ],
)
def test_broken_games_name_the_fact(old: str, new: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        kitchen(**{old: new})
    assert "kitchen" in str(caught.value)
    assert message in str(caught.value)


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    for content, message in (
        ("", "not JSON"),
        ("[]", "pddl_problem"),
        ('{"pddl_problem": "()"}', "grammar"),
        ('{"pddl_problem": "()", "grammar": "no task"}', "Your task is to"),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match=message) as caught:
            read_game(path)
        assert "game.tw-pddl" in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_game(tmp_path / "missing")


def test_a_json_game_without_extras_is_enough() -> None:
    data = json.loads(json.dumps({"pddl_problem": KITCHEN, "grammar": GRAMMAR}))
    assert game_from(data, "x") == kitchen().__class__(**{**_fields(kitchen()), "name": "x"})


def _fields(game: Game) -> dict[str, Any]:
    return {name: getattr(game, name) for name in game.__slots__}
