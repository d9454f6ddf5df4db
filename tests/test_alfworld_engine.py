"""The native ALFWorld engine: a kitchen by hand, text for text, and official games where they are at hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.game import Game, game_from, read_game
from repro_rl.envs.alfworld.plan import commands, length, shortest
from repro_rl.errors import DataError, MissingDependencyError

KITCHEN = """
(define (problem hand_made) (:domain alfred)
(:objects agent1 - agent)  ; a comment
(:init
  (receptacleType Cabinet_bar__minus_01_bar_a CabinetType)
  (receptacleType Cabinet_bar__plus_01_bar_a CabinetType)
  (receptacleType Fridge_bar_1 FridgeType) (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType)
  (receptacleType DiningTable_bar_1 DiningTableType)
  (receptacleAtLocation Cabinet_bar__minus_01_bar_a loc_bar_1)
  (receptacleAtLocation Cabinet_bar__plus_01_bar_a loc_bar_2)
  (receptacleAtLocation Fridge_bar_1 loc_bar_3) (receptacleAtLocation Sink_bar_1_bar_SinkBasin loc_bar_2)
  (receptacleAtLocation DiningTable_bar_1 loc_bar_4)
  (openable Cabinet_bar__minus_01_bar_a) (openable Cabinet_bar__plus_01_bar_a) (openable Fridge_bar_1)
  (atLocation agent1 loc_bar_0)
  (objectType Apple_bar_1 AppleType) (objectType Apple_bar_2 AppleType) (objectType Knife_bar_1 KnifeType)
  (objectType Bowl_bar_1 BowlType) (objectType Window_bar_1 WindowType)
  (inReceptacle Apple_bar_1 DiningTable_bar_1) (inReceptacle Apple_bar_2 Cabinet_bar__minus_01_bar_a)
  (inReceptacle Knife_bar_1 DiningTable_bar_1) (inReceptacle Bowl_bar_1 DiningTable_bar_1)
  (objectAtLocation Apple_bar_1 loc_bar_4) (objectAtLocation Knife_bar_1 loc_bar_4)
  (inReceptacleObject Apple_bar_1 Bowl_bar_1) (isReceptacleObject Bowl_bar_1)
  (pickupable Apple_bar_1) (pickupable Apple_bar_2) (pickupable Knife_bar_1) (pickupable Bowl_bar_1)
  (coolable Apple_bar_1) (coolable Apple_bar_2) (cleanable Apple_bar_1) (sliceable Apple_bar_1)
  (canContain FridgeType AppleType) (canContain CabinetType AppleType) (canContain DiningTableType AppleType)
  (canContain DiningTableType KnifeType) (canContain SinkBasinType AppleType) (distance loc_bar_1 loc_bar_2 7)
  (wasInReceptacle Apple_bar_1 Fridge_bar_1)
)
(:goal (and (exists (?r - receptacle) (exists (?o - object) (and (coolable ?o) (objectType ?o AppleType)
  (receptacleType ?r CabinetType) (isCool ?o) (inReceptacle ?o ?r)))))))
"""
ON_TABLE = "On the diningtable 1, you see a apple 2, a bowl 1, and a knife 1."
GRAMMAR = '{"task": [{"rhs": "Your task is to: put a cool apple in cabinet."}]}'


def kitchen(**changes: str) -> Game:
    problem = KITCHEN
    for old, new in changes.items():
        problem = problem.replace(old, new)
    return game_from({"pddl_problem": problem, "grammar": GRAMMAR}, "kitchen")


def test_a_kitchen_text_for_text() -> None:
    play = Play(kitchen())
    assert play.intro() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around "
        "you, you see a cabinet 2, a cabinet 1, a diningtable 1, a fridge 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a cool apple in cabinet."
    )
    assert play.admissible() == [
        "go to cabinet 1",
        "go to cabinet 2",
        "go to diningtable 1",
        "go to fridge 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
    ]
    for command, text in (
        ("look", "You are in the middle of a room. Looking quickly around you, you see nothing."),
        ("inventory", "You are not carrying anything."),
        ("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is closed."),
        ("look", "You are facing the cabinet 1, and sinkbasin 1. Next to it, you see nothing."),
        ("go to sinkbasin 1", None),
        ("examine sinkbasin 1", "On the sinkbasin 1, you see nothing."),
        ("open cabinet 1", "You open the cabinet 1. The cabinet 1 is open. In it, you see nothing."),
        ("open cabinet 1", None),
        ("close cabinet 1\n", "You close the cabinet 1."),
        ("go to diningtable 1", f"You arrive at diningtable 1. {ON_TABLE}"),
        ("take window 1 from diningtable 1", None),
        ("take knife 1 from diningtable 1", "You pick up the knife 1 from the diningtable 1."),
        ("take bowl 1 from diningtable 1", None),
        ("inventory", "You are carrying: a knife 1."),
        ("examine knife 1", "There's nothing special about knife 1."),
        ("slice apple 2 with knife 1", "You sliced the apple 2 with the knife 1."),
        ("move knife 1 to diningtable 1", "You move the knife 1 to the diningtable 1."),
        ("take bowl 1 from diningtable 1", "You pick up the bowl 1 from the diningtable 1."),
        ("examine bowl 1", "This is a normal bowl 1. In it, you see a apple 2."),
        ("move bowl 1 to diningtable 1", None),
    ):
        assert play.act(command) == text, command
    assert shortest(play) is None, "the bowl fits nowhere: a dead end"


def test_what_appliances_do_and_when_it_is_won() -> None:
    play = Play(kitchen())
    for command, text in (
        ("go to diningtable 1", None),
        ("take apple 2 from diningtable 1", "You pick up the apple 2 from the diningtable 1."),
        ("go to sinkbasin 1", None),
        ("clean apple 2 with sinkbasin 1", "You clean the apple 2 using the sinkbasin 1."),
        ("examine apple 2", "This is a clean apple 2."),
        ("go to fridge 1", "You arrive at fridge 1. The fridge 1 is closed."),
        ("cool apple 2 with fridge 1", "You cool the apple 2 using the fridge 1."),
        ("examine apple 2", "This is a cool and clean apple 2."),
        ("move apple 2 to fridge 1", None),
        ("go to cabinet 2", None),
        ("open cabinet 2", "You open the cabinet 2. The cabinet 2 is open. In it, you see a apple 1."),
    ):
        said = play.act(command)
        if text is not None:
            assert said == text, command
        assert not play.won()
    assert play.act("move apple 2 to cabinet 2") == "You move the apple 2 to the cabinet 2."
    assert play.won()
    assert shortest(play) == []


def test_what_is_moved_within_one_place_lies_beside_it() -> None:
    """The real engine's own quirk; the sink basin and cabinet 1 share a location."""
    play = Play(kitchen())
    for command in (
        "go to diningtable 1",
        "take apple 2 from diningtable 1",
        "go to cabinet 1",
        "open cabinet 1",
        "move apple 2 to cabinet 1",
        "take apple 2 from cabinet 1",
    ):
        assert play.act(command) is not None, command
    assert play.act("look") == "You are facing the cabinet 1, and sinkbasin 1. Next to it, you see nothing."
    play.act("move apple 2 to sinkbasin 1")
    assert play.act("look") == "You are facing the cabinet 1, and sinkbasin 1. Next to it, you see a apple 2."
    play.act("take apple 2 from sinkbasin 1")
    play.act("move apple 2 to cabinet 1")
    assert (
        play.act("look") == "You are facing the cabinet 1, and sinkbasin 1. Next to it, you see a apple 2."
    ), "now it is the sink basin it was taken from"


def test_the_older_words_text_for_text() -> None:
    """Locations are numbered like everything else: sorted, the first has the highest number."""
    play = Play(kitchen(), version="0.3")
    assert "help" not in play.admissible()
    for command, text in (
        ("help", None),
        ("go to diningtable 1", f"You arrive at loc 1. {ON_TABLE}"),
        ("take apple 2 from diningtable 1", "You pick up the apple 2 from the diningtable 1."),
        ("move apple 2 to diningtable 1", None),
        ("put apple 2 in/on diningtable 1", "You put the apple 2 in/on the diningtable 1."),
        ("go to cabinet 2", "You arrive at loc 4. The cabinet 2 is closed."),
    ):
        assert play.act(command) == text, command
    for said in ("move a 1 to b 2", "put a 1 in b 2", "put a 1 on b 2", "put a 1 in/on b 2"):
        assert play.understood(said) == "put a 1 in/on b 2"
        assert Play(kitchen()).understood(said) == "move a 1 to b 2"
    assert play.understood("take a 1 from b 2") == "take a 1 from b 2"


def test_the_shortest_plan_by_hand() -> None:
    play = Play(kitchen())
    plan = shortest(play)
    assert plan is not None
    # From the table no opening is needed; one for the cabinet.
    assert list(commands(play, plan)) == [
        "go to diningtable 1",
        "take apple 2 from diningtable 1",
        "go to fridge 1",
        "cool apple 2 with fridge 1",
        "go to cabinet 2",
        "open cabinet 2",
        "move apple 2 to cabinet 2",
    ]
    assert length(play, plan) == 7
    for command in ("go to diningtable 1", "take knife 1 from diningtable 1"):
        play.act(command)
    plan = shortest(play)
    assert plan is not None
    assert length(play, plan) == 7, "put the knife down, then the six that were left"


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
        ("", "cannot be read as JSON"),
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


def test_official_games_are_won_by_plans_that_only_get_shorter(official: list[Path]) -> None:
    kinds: Counter[str] = Counter()
    lengths = []
    for path in official:
        play = Play(read_game(path))
        kinds[play.game.goal.kind] += 1
        plan = shortest(play)
        assert plan is not None, path
        todo = list(commands(play, plan))
        lengths.append(len(todo))
        for done, command in enumerate(todo, start=1):
            assert command in play.admissible(), (path, command)
            play.act(command)
            left = shortest(play)
            assert left is not None
            assert length(play, left) == len(todo) - done, (path, command)
        assert play.won()
    assert dict(kinds) == {"place": 46, "two": 45, "clean": 37, "cool": 28, "heat": 25, "look": 19}
    assert sum(lengths) / len(lengths) == pytest.approx(5.97)


def test_no_command_shortens_the_plan_by_more_than_one(official: list[Path]) -> None:
    """What makes the plan length a distance: every neighbour is at most one closer."""
    rng = random.Random(0)
    for path in official[::4]:
        play = Play(read_game(path))
        plan = shortest(play)
        assert plan is not None
        before = length(play, plan)
        for _ in range(30):
            command = rng.choice(play.admissible())
            play.act(command)
            plan = shortest(play)
            if plan is None:
                break  # something in the hand that fits nowhere
            after = length(play, plan)
            assert after >= before - 1, (path, command)
            before = after
            if not after:
                break


def test_bad_commands_change_nothing(official: list[Path]) -> None:
    play: Any = Play(read_game(official[0]))
    before = play.admissible()
    for command in (
        "",
        "go to nowhere 1",
        "GO TO BED 1",
        "take x 1 from y 1",
        "\x00",
        "look around",
        "🧱" * 99,
    ):
        assert play.act(command) is None
        assert play.admissible() == before


def test_a_json_game_without_extras_is_enough() -> None:
    data = json.loads(json.dumps({"pddl_problem": KITCHEN, "grammar": GRAMMAR}))
    assert game_from(data, "x") == kitchen().__class__(**{**_fields(kitchen()), "name": "x"})


def _fields(game: Game) -> dict[str, Any]:
    return {name: getattr(game, name) for name in game.__slots__}


def test_without_the_original_packages_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from repro_rl.envs.alfworld.real import RealPlay

    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'repro-rl\[alfworld\]'"):
        RealPlay(Path("x"))


def test_an_object_in_two_receptacles_needs_no_move_into_the_one_it_stays_in() -> None:
    """It may even be one that it could not be put into; found by exhaustive search."""
    old = "(inReceptacle Apple_bar_1 DiningTable_bar_1)"
    game = kitchen(
        **{
            old: f"{old} (inReceptacle Apple_bar_1 Cabinet_bar__minus_01_bar_a)",
            "(canContain CabinetType AppleType)": "",
        }
    )
    play = Play(game)
    plan = shortest(play)
    assert plan is not None
    assert list(commands(play, plan)) == [
        "go to diningtable 1",
        "take apple 2 from diningtable 1",
        "go to fridge 1",
        "cool apple 2 with fridge 1",
    ]
