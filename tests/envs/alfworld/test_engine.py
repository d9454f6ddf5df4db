"""The native ALFWorld engine, compared with expected texts."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, strategies as st

from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.planner import shortest
from support.alfworld import kitchen

ON_TABLE = "On the diningtable 1, you see a apple 2, a bowl 1, and a knife 1."


def test_the_texts_of_a_kitchen() -> None:
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


def test_an_object_moved_within_one_location_is_listed_beside_it() -> None:
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


@given(st.integers(0, 2**32 - 1), st.sampled_from(["kitchen", "in two"]))
def test_what_is_kept_between_states_is_what_the_state_gives(seed: int, which: str) -> None:
    """Contents, the parts of the state's text and commands: kept in ``Play``, computed anew here."""
    game = kitchen()
    if which == "in two":  # official games have objects that lie in two receptacles
        game = replace(game, inside=(game.inside[0] | {0, 1}, *game.inside[1:]))
    play, draws = Play(game), Random(seed)
    for _ in range(40):
        play.act(draws.choice(play.admissible()))
        inside = [sorted(receptacles) for receptacles in play.inside]
        for r in range(-1, len(game.receptacles)):
            assert list(play.contents(r)) == [o for o, where in enumerate(inside) if r in where]
        flags = {name: sorted(o for o in range(len(inside)) if play.has(name, o)) for name in game.flags}
        taken = sorted(play._taken_from)
        assert play.state() == f"{play.at} {play.held} {sorted(play.opened)} {inside} {flags} {taken}"
        far = {r for r, where in enumerate(game.receptacle_locations) if where != play.at}
        assert {r for verb, _, r in play.possible_commands().values() if verb == "go"} == far


def test_the_texts_of_version_0_3_in_the_kitchen() -> None:
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
    for command in ("move a 1 to b 2", "put a 1 in b 2", "put a 1 on b 2", "put a 1 in/on b 2"):
        assert play.normalized(command) == "put a 1 in/on b 2"
        assert Play(kitchen()).normalized(command) == "move a 1 to b 2"
    assert play.normalized("take a 1 from b 2") == "take a 1 from b 2"


def test_bad_commands_change_nothing() -> None:
    play: Any = Play(kitchen())
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
