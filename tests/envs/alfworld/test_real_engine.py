"""The native engine and the written files against the original packages (textworld, alfworld).

Skipped where those are not installed: ``pip install '.[alfworld]'`` (Python up to 3.12). Every test
prints what it compared (``pytest -s``); with all games this takes about a quarter of an hour.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

import repro_rl
from repro_rl.envs.alfworld.engine import NOTHING, Play
from repro_rl.envs.alfworld.export import write_tree
from repro_rl.envs.alfworld.game import read_data, read_game
from repro_rl.envs.alfworld.household_tables import tables
from repro_rl.envs.alfworld.planner import commands, shortest
from repro_rl.errors import DataError

REASON = "the original engine is not installed; pip install '.[alfworld]' on Python 3.11 or 3.12"
pytest.importorskip("textworld", reason=REASON)
pytest.importorskip("fast_downward", reason=REASON)
alfred: Any = pytest.importorskip("alfworld.agents.environment.alfred_tw_env", reason=REASON)

from repro_rl.envs.alfworld.real import RealPlay  # noqa: E402

pytestmark = pytest.mark.slow
# Games of each task type (and split): those with the smallest files, which the original engine loads fastest.
OFFICIAL = 11
EXPORTED = 1
GUESSES = 8  # random commands a game
ODD = (
    "",
    "LOOK",
    "look around",
    "go to nowhere 1",
    "take a",
    "help me",
    "move 1 to 2",
    "go to  bed 1",
    "\x00",
)
# What the grammars of ALFWorld 0.3 say in other words; taken from the file data/alfred.twl2 of 0.3.5.
OLDER = (
    ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ("move {o} to {r}", "put {o} in/on {r}"),
)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated households as files."""
    folder = tmp_path_factory.mktemp("households")
    write_tree(folder, 4 * len(tables().tasks) * EXPORTED)
    return folder


def expert(play: Play) -> Iterator[str]:
    while not play.won() and (plan := shortest(play)) is not None:
        yield next(commands(play, plan))


def kind_of(path: Path) -> str:
    """The task type that the folder of a game file names."""
    return path.parent.parent.name.split("-")[0]


def smallest(paths: Iterable[Path], count: int) -> list[Path]:
    """The ``count`` smallest files of each task type."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: (path.stat().st_size, path)):
        kinds.setdefault(kind_of(path), []).append(path)
    return [path for group in kinds.values() for path in group[:count]]


def guess(play: Play, rng: random.Random, count: int) -> Iterator[str]:
    """Random commands, of which some are none, and some that are possible in another state."""
    seen = list(ODD)
    for _ in range(count):
        now = play.admissible()
        yield rng.choice(now if rng.random() < 0.75 else seen)
        seen += now


def compare(ours: Play, real: RealPlay, todo: Iterable[str], name: object) -> int:
    """Play ``todo`` in both; they must not differ in anything. Returns how many states were compared."""
    states = 0
    for command in todo:
        assert (ours.act(command) or NOTHING) == (real.act(command) or NOTHING), (name, command)
        assert ours.admissible() == real.admissible(), (name, command)
        assert ours.won() == real.won(), (name, command)
        states += 1
    return states


def compare_start(ours: Play, real: RealPlay) -> None:
    assert ours.intro() == real.intro()
    assert ours.admissible() == real.admissible()
    assert not ours.won()
    assert not real.won()


def test_official_games(official: list[Path]) -> None:
    """Random and odd commands, and the expert's: before them in one half of the games, after in the other."""
    states = won = 0
    paths = smallest(official, OFFICIAL)
    for number, path in enumerate(paths):
        ours, real, rng = Play(read_game(path)), RealPlay(path), random.Random(number)
        compare_start(ours, real)
        parts = [guess(ours, rng, GUESSES), expert(ours)]
        states += 1 + compare(ours, real, chain(*(parts if number % 2 else parts[::-1])), path)
        won += ours.won()
    print(f"\n{len(paths)} official games, {states} states, {won} left won: no difference")
    assert Counter(map(kind_of, paths)) == dict.fromkeys(tables().tasks, OFFICIAL)


def test_exported_games(tree: Path) -> None:
    """The expert wins every game in the real engine; random and odd commands follow."""
    states = 0
    kinds: Counter[tuple[str, str]] = Counter()
    for split in ("train", "valid_seen", "valid_unseen"):
        for path in smallest((tree / "json_2.1.1" / split).glob("*/*/game.tw-pddl"), EXPORTED):
            kinds[split, kind_of(path)] += 1
            ours, real, rng = Play(read_game(path)), RealPlay(path), random.Random(str(path.parent.name))
            compare_start(ours, real)
            plan = shortest(ours)
            assert plan
            planned = list(commands(ours, plan))
            states += 1 + compare(ours, real, planned, path)
            assert real.won(), path
            assert planned == read_data(path)["walkthrough"]
            states += compare(ours, real, guess(ours, rng, GUESSES), path)
    print(f"\n{kinds.total()} exported games, all won, {states} states: no difference")
    assert kinds == dict.fromkeys(kinds, EXPORTED)
    assert len(kinds) == 3 * len(tables().tasks)


def test_version_0_3(official: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """version="0.3" against the real engine with the official grammar changed back."""
    states = 0
    path = tmp_path / "game.tw-pddl"
    for number, source in enumerate(smallest(official, 1)):
        data = read_data(source)
        for new, old in OLDER:
            assert new in data["grammar"]
            data["grammar"] = data["grammar"].replace(new, old)
        data["grammar"] = data["grammar"][: data["grammar"].index("action help")]
        data["pddl_domain"] = data["pddl_domain"].split("(:action help")[0] + ")"  # it is the last one
        path.write_text(json.dumps(data))
        with pytest.raises(DataError, match=r"ALFWorld 0\.3 or before"):
            RealPlay(path)
        with monkeypatch.context() as patch:
            patch.setattr("repro_rl.envs.alfworld.real._PUT_FORM", "")
            real = RealPlay(path)
        ours = Play(read_game(path), version="0.3")
        compare_start(ours, real)
        rng = random.Random(number)
        states += 1 + compare(ours, real, chain(guess(ours, rng, GUESSES), ["help"], expert(ours)), source)
    print(f"\n{number + 1} official games with the words of 0.3, {states} states: no difference")


def test_the_environment_with_the_real_engine(tree: Path) -> None:
    """engine="textworld" plays what we wrote, and both verbs."""
    native, real = (repro_rl.make("alfworld", data=str(tree), engine=e) for e in ("native", "textworld"))
    task = next(iter(native.panel("valid_unseen")))
    assert native.reset(options={"task": task}) == real.reset(options={"task": task})
    while (command := native.expert()) is not None:
        older = command.replace("move ", "put ").replace(" to ", " in/on ") if "move " in command else command
        assert native.step(command) == real.step(older)


def test_the_original_package_finds_and_plays_the_files(tree: Path) -> None:
    """ALFWorld's own environment class, with a configuration that points to the written folder."""
    folder = tree / "json_2.1.1"
    config = {
        "env": {
            "goal_desc_human_anns_prob": 0,
            "task_types": [1, 2, 3, 4, 5, 6],
            "domain_randomization": False,
            "expert_type": "handcoded",
        },
        "general": {"training_method": "dqn"},
        "rl": {"training": {"max_nb_steps_per_episode": 50}},
        "dataset": {
            "data_path": str(folder / "train"),
            "eval_id_data_path": str(folder / "valid_seen"),
            "eval_ood_data_path": str(folder / "valid_unseen"),
            "num_train_games": 0,
            "num_eval_games": 0,
        },
    }
    for name, split in (
        ("train", "train"),
        ("eval_in_distribution", "valid_seen"),
        ("eval_out_of_distribution", "valid_unseen"),
    ):
        with quiet():
            found = alfred.AlfredTWEnv(config, train_eval=name)
        assert sorted(found.game_files) == sorted(map(str, (folder / split).glob("*/*/game.tw-pddl")))
    with quiet():
        found.game_files = found.game_files[:1]
        env = found.init_env(batch_size=1)
        observations, infos = env.reset()
    play = Play(read_game(Path(infos["extra.gamefile"][0])))
    assert observations[0] == play.intro()
    done = (False,)
    for command in expert(play):
        observations, _, done, infos = env.step([command])
        assert observations[0] == play.act(command)
        assert infos["admissible_commands"][0] == play.admissible()
    env.close()
    assert done[0]
    assert infos["won"][0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The packages print, and the planner overwrites sys.argv."""
    arguments = sys.argv[:]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        sys.argv[:] = arguments
