"""What an agent remembers is what texts have told it."""

from __future__ import annotations

import pytest

from repro_rl.envs.alfworld.memory import Memory, ReadGoal, read_goal

INTRO = """-= Welcome to TextWorld, ALFRED! =-

You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, and a fridge 1.

Your task is to: put a cool apple in cabinet."""


def after(*texts: str) -> Memory:
    memory = Memory()
    for text in (INTRO, *texts):
        memory.read(text)
    return memory


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("put a book in sofa.", ReadGoal("place", "book", "sofa")),
        ("put some book on sofa.", ReadGoal("place", "book", "sofa")),
        ("put a clean pan in fridge.", ReadGoal("clean", "pan", "fridge")),
        ("clean some pan and put it in fridge.", ReadGoal("clean", "pan", "fridge")),
        ("put a hot egg in garbagecan.", ReadGoal("heat", "egg", "garbagecan")),
        ("heat some egg and put it in garbagecan.", ReadGoal("heat", "egg", "garbagecan")),
        ("put a cool tomato in microwave.", ReadGoal("cool", "tomato", "microwave")),
        ("cool some tomato and put it in microwave.", ReadGoal("cool", "tomato", "microwave")),
        ("put two cd in safe.", ReadGoal("two", "cd", "safe")),
        ("find two cd and put them in safe.", ReadGoal("two", "cd", "safe")),
        ("look at bowl under the desklamp.", ReadGoal("look", "bowl", "desklamp")),
        ("examine the bowl with the desklamp.", ReadGoal("look", "bowl", "desklamp")),
        ("Turn on the lamp while you hold a bowl.", None),  # as people write tasks
    ],
)
def test_goals_are_read_from_their_sentences(sentence: str, goal: ReadGoal | None) -> None:
    assert read_goal(sentence) == goal


def test_the_first_text_names_places_and_task() -> None:
    memory = after()
    assert memory.places == ["cabinet 2", "cabinet 1", "fridge 1"]
    assert memory.goal == ReadGoal("cool", "apple", "cabinet")
    assert (memory.contents, memory.closed, memory.held, memory.at) == ({}, set(), None, None)


def test_contents_are_remembered_once_they_were_seen() -> None:
    memory = after("You arrive at cabinet 1. The cabinet 1 is closed.")
    assert (memory.at, memory.closed, memory.contents) == ("cabinet 1", {"cabinet 1"}, {})
    memory.read("You open the cabinet 1. The cabinet 1 is open. In it, you see a cup 2, and a apple 1.")
    assert (memory.closed, memory.contents) == (set(), {"cabinet 1": ["cup 2", "apple 1"]})
    assert memory.where("apple") == [("apple 1", "cabinet 1")]
    memory.read("You arrive at fridge 1. The fridge 1 is open. In it, you see nothing.")
    assert memory.contents["fridge 1"] == []
    memory.read("You close the cabinet 1.")
    assert memory.closed == {"cabinet 1"}
    assert memory.where("apple") == [("apple 1", "cabinet 1")]  # what is inside is still known


def test_what_is_handled_is_remembered() -> None:
    memory = after("You arrive at loc 7. On the cabinet 1, you see a apple 1.")  # version 0.3
    memory.read("You pick up the apple 1 from the cabinet 1.")
    assert (memory.held, memory.came_from, memory.contents["cabinet 1"]) == (
        "apple 1",
        {"apple 1": "cabinet 1"},
        [],
    )
    assert not memory.ready("apple 1")
    memory.read("You cool the apple 1 using the fridge 1.")
    assert memory.ready("apple 1")
    memory.read("You heat the apple 1 using the microwave 1.")  # no longer cool
    assert not memory.ready("apple 1")
    memory.read("You put the apple 1 in/on the fridge 1.")
    assert (memory.held, memory.contents["fridge 1"]) == (None, ["apple 1"])


def test_texts_that_tell_nothing_change_nothing() -> None:
    known = "You arrive at cabinet 1. On the cabinet 1, you see a plate 1."
    for text in (
        "Nothing happens.",
        "You are facing the cabinet 1. Next to it, you see nothing.",
        "This is a normal plate 1. In it, you see a fork 1.",  # an object, not a place
        "You are not carrying anything.",
    ):
        one, other = after(known), after(known, text)
        assert (one.contents, one.at, one.held, one.closed) == (
            other.contents,
            other.at,
            other.held,
            other.closed,
        )
