"""Generated ALFWorld households: determinism, rooms, sizes, and whether every game can be won."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.envs.alfworld.engine import Play
from repro_rl.envs.alfworld.game import Goal, content_key, demangle, game_from, task_sentence
from repro_rl.envs.alfworld.household_rules import domain
from repro_rl.envs.alfworld.household_tables import tables
from repro_rl.envs.alfworld.households import (
    COMMANDS,
    OBJECTS,
    RECEPTACLES,
    SPLITS,
    Household,
    household,
)
from repro_rl.envs.alfworld.planner import commands, length, shortest
from repro_rl.errors import TaskError

KINDS = dict(zip(tables().tasks, ("place", "look", "clean", "heat", "cool", "two"), strict=True))
SENTENCES = {
    "place": r"put (a|some) {o} (in|on) {r}\.",
    "look": r"(look at {o} under the {r}|examine the {o} with the {r})\.",
    "clean": r"(put a clean {o} in {r}|clean some {o} and put it in {r})\.",
    "heat": r"(put a hot {o} in {r}|heat some {o} and put it in {r})\.",
    "cool": r"(put a cool {o} in {r}|cool some {o} and put it in {r})\.",
    "two": r"(put two {o} in {r}|find two {o} and put them in {r})\.",
}


def room(home: Household) -> int:
    return int(home.id.split("/")[1].rsplit("-", 1)[1])


def raw_receptacles(home: Household) -> set[str]:
    return set(re.findall(r"^ +(\S+) - receptacle$", home.data["pddl_problem"], re.MULTILINE))


def check(home: Household) -> None:
    """Everything that has to hold of every game."""
    game = game_from(home.data, home.id)
    _, folder, trial = home.id.split("/")
    kind, wanted, nothing, target, _ = folder.split("-")
    assert kind == home.task_type
    assert nothing == "None"
    assert re.fullmatch(r"trial_[0-9a-f]{16}", trial)
    assert game.goal == Goal(KINDS[kind], wanted, target)
    sentence = SENTENCES[KINDS[kind]].format(o=wanted.lower(), r=target.lower())
    assert re.fullmatch(f"Your task is to: {sentence}", game.task)
    assert RECEPTACLES[0] <= len(game.receptacles) <= RECEPTACLES[1]
    assert OBJECTS[0] <= len(game.objects) <= OBJECTS[1]
    assert len({*game.receptacles}) == len(game.receptacles)
    assert len({*game.objects}) == len(game.objects)
    assert game.start not in game.receptacle_locations
    for o, where in enumerate(game.inside):
        assert {game.receptacle_locations[r] for r in where} <= game.object_locations[o]
        for r in where if o in game.flags["pickupable"] else ():
            assert (game.receptacle_types[r], game.object_types[o]) in game.fits
    play = Play(game)
    walkthrough = home.data["walkthrough"]
    stops = shortest(play)
    assert stops
    assert walkthrough == list(commands(play, stops))
    assert COMMANDS[0] <= len(walkthrough) == length(play, stops) <= COMMANDS[1]
    for command in walkthrough:
        assert not play.won()
        assert command in play.admissible()
        assert play.act(command) is not None
    assert play.won()


def test_one_game_is_pinned() -> None:
    home = household("train", 0)
    sentence = task_sentence(home.data["grammar"])
    text = json.dumps([home.id, home.data["pddl_problem"], sentence, home.data["walkthrough"]])
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "a03145053ba03f22bcb9ee6140e30f8c163999ddd6133c90e16e46e8468c37a1"
    )
    assert content_key(home.data) == "82568d55551282e7cef4afd14e41aa049babe2f9fded263386397e60125087a8"


def test_how_the_texts_are_written_does_not_change_a_digest() -> None:
    data = household("train", 3).data
    sentence = task_sentence(data["grammar"])
    assert content_key({**data, "grammar": f'{{"x": "{sentence}"}}', "pddl_domain": ""}) == content_key(data)
    other = data["grammar"].replace("Your task is to: ", "Your task is to: please ")
    assert content_key({**data, "grammar": other}) != content_key(data)
    assert content_key({**data, "pddl_problem": "()"}) != content_key(data)
    official = {key: value for key, value in data.items() if key != "made_by"}
    assert content_key({**official, "grammar": data["grammar"] + "."}) != content_key(official)


def test_every_action_has_its_texts() -> None:
    """What the real engine looks up: a template and a rule for each action, and every rule that is named."""
    home = household("train", 5)
    actions = re.findall(r"\(:action (\w+)", domain())
    written = home.data["grammar"]
    assert re.findall(r"^action (\w+) \{", written, re.MULTILINE) == actions
    rules = json.loads(written.split('"""')[1])
    named = set(re.findall(r"#([^#\s]+)#", written)) | {"list_empty", "list_separator", "list_last_separator"}
    assert named | {"intro"} == rules.keys()
    predicates = {name.lower() for name in re.findall(r"\((\w+) \?", domain())} | {"inreceptacleobject"}
    for rule in rules.values():
        assert "condition" not in rule[-1]
        for option in rule:
            conditions = option.get("condition", "") + " ".join(re.findall(r"\| ([^}]*)\}", option["rhs"]))
            for name in re.findall(r"(\w+)\([a-z]+:", conditions):
                assert name.removeprefix("not_") in predicates
    assert rules["task"] == [{"rhs": task_sentence(written)}]


def test_same_arguments_same_game_other_arguments_other_games() -> None:
    assert household("valid_seen", 7, 3) == household("valid_seen", 7, 3)
    home = [household(split, n, seed) for split in SPLITS for n in range(12) for seed in (0, 1)]
    assert len({h.id.split("/")[2] for h in home}) == len({h.data["pddl_problem"] for h in home}) == len(home)


@pytest.mark.parametrize("split", SPLITS)
def test_games_can_be_won_and_task_types_are_equally_many(split: str) -> None:
    home = [household(split, n) for n in range(60)]
    for one in home:
        check(one)
    assert Counter(h.task_type for h in home) == dict.fromkeys(tables().tasks, 10)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SPLITS), st.integers(0, 10**9), st.integers(-(2**40), 2**40))
def test_any_number_and_seed(split: str, number: int, seed: int) -> None:
    check(household(split, number, seed))


def test_unseen_rooms_are_not_in_train_and_seen_rooms_are() -> None:
    rooms = {split: {room(household(split, n)) for n in range(900)} for split in SPLITS}
    assert not rooms["valid_unseen"] & (rooms["train"] | rooms["valid_seen"])
    assert len(rooms["valid_seen"] & rooms["train"]) > 0.8 * len(rooms["valid_seen"])
    assert len(rooms["valid_unseen"]) > 40


def test_a_room_has_one_layout_and_other_rooms_have_others() -> None:
    layouts: dict[int, set[str]] = {}
    starts: dict[int, set[str]] = {}
    for split in SPLITS:
        for n in range(150):
            home = household(split, n, seed=n % 3)
            assert layouts.setdefault(room(home), raw_receptacles(home)) == raw_receptacles(home)
            starts.setdefault(room(home), set()).add(home.data["pddl_problem"])
    assert len({frozenset(layout) for layout in layouts.values()}) == len(layouts)
    assert any(len(problems) > 1 for problems in starts.values())  # the objects lie elsewhere


def test_ids_are_in_the_official_style() -> None:
    sinks = 0
    number = r"[+-]\d\d\.\d\d"
    for n in range(30):
        for raw in raw_receptacles(household("train", n)):
            plain = demangle(raw)
            assert re.fullmatch(rf"[A-Za-z]+(\|{number}){{3}}(\|SinkBasin|\|BathtubBasin)?", plain)
            sinks += plain.startswith("Sink|") and plain.endswith("|SinkBasin")
    assert sinks
    problem = household("train", 2).data["pddl_problem"]
    assert re.search(r"\(receptacleType Sink_bar_\S+_bar_SinkBasin SinkBasinType\)", problem)
    assert re.search(r"\(atLocation agent1 loc(_bar_(_minus_)?\d+){3}_bar_30\)", problem)


def test_every_name_in_a_problem_is_declared() -> None:
    for n in range(12):
        problem = household("valid_unseen", n).data["pddl_problem"]
        declared = re.findall(r"^ +(\S+) - \w+\)?$", problem, re.MULTILINE)
        assert len(declared) == len({*declared})
        init = problem[problem.index("(:init") + 6 : problem.index("(:goal")]
        facts = re.findall(r"\((\w+) ([^()]+)\)", init)
        assert len(facts) == len({*facts})
        predicates = {*re.findall(r"\((\w+) \?", domain())}
        for predicate, names in facts:
            assert predicate in predicates
            assert {*names.split()} <= {*declared}


def test_domain_brackets_close() -> None:
    depth = 0
    for symbol in re.sub(r";.*", "", domain()).strip():
        depth += {"(": 1, ")": -1}.get(symbol, 0)
        assert depth >= 0
    assert depth == 0
    assert household("train", 1).data["pddl_domain"] == domain()


def test_tables_agree() -> None:
    for name, kind in tables().rooms.items():
        assert kind.furniture.keys() <= tables().furniture.keys(), name
        for thing in kind.objects:
            homes = {*tables().start_receptacles[thing]}
            assert homes <= tables().furniture.keys(), thing
            assert homes & kind.furniture.keys(), f"{thing} has no place in a {name}"
        assert not kind.fixtures.keys() & tables().start_receptacles.keys()
        assert sum(low for low, _ in kind.furniture.values()) <= RECEPTACLES[1]
    known = tables().start_receptacles.keys() | {
        thing for kind in tables().rooms.values() for thing in kind.fixtures
    }
    for receptacle, things in tables().also_fits.items():
        assert receptacle in tables().furniture
        assert things <= tables().start_receptacles.keys(), receptacle
        assert not [t for t in things if receptacle in tables().start_receptacles[t]], receptacle
    for things in tables().properties.values():
        assert things <= known


@pytest.mark.parametrize(("split", "number"), [("test", 0), ("train", -1)])
def test_no_such_household(split: str, number: int) -> None:
    with pytest.raises(TaskError):
        household(split, number)
