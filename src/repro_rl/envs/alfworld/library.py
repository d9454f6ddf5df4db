"""Where games come from: an official tree of files, or households made on the spot."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from repro_rl.envs.alfworld.game import MADE_BY, Game, game_from, read_data, read_game, task_sentence
from repro_rl.envs.alfworld.households import SPLITS, household
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import DataError, TaskError, did_you_mean
from repro_rl.files import cache_root, write_json

OTHER_NAMES = {"validation": "valid_seen", "test": "valid_unseen"}
FILE = "game.tw-pddl"
MANIFEST = "households.json"  # beside the splits, where the games are ours (export.py)
GENERATED = "generated households"
GENERATED_ENV = "alfworld-generated"  # stands for the environment in the panels of such games
_SKIPPED = ("movable", "Sliced")  # tasks that ALFWorld leaves out


@dataclass(slots=True, frozen=True)
class Survey:
    """What a split of a tree holds."""

    panel: TaskPanel
    kinds: dict[str, int]  # task type -> games
    unsolvable: int  # games marked so; not in the panel
    left_out: int  # games that ALFWorld itself leaves out; not in the panel


class Library(Protocol):
    """Games by task id."""

    def panel(self, split: str) -> TaskPanel: ...
    def game(self, task_id: str) -> Game: ...
    def describe(self) -> str: ...


@lru_cache(maxsize=8)
def library(folder: Path | None, games: int, seed: int) -> Library:
    """The official games below ``folder``, or ``games`` generated training games. One per process."""
    return Households(games, seed) if folder is None else Tree(folder)


def content_key(data: dict[str, Any]) -> str:
    """sha256 of what decides a game: its problem and its grammar, white space aside.

    Of the grammar of a generated game only the task sentence counts, so that panels stay the same when we
    write the rest of it in another way.
    """
    grammar = str(data.get("grammar", ""))
    if data.get("made_by") == MADE_BY:
        grammar = json.dumps({"task": [{"rhs": task_sentence(grammar)}]}, indent=2)
    text = "\n".join(" ".join(part.split()) for part in (str(data.get("pddl_problem", "")), grammar))
    return hashlib.sha256(text.encode()).hexdigest()


def split_name(split: str) -> str:
    """The official name of a split. Raises TaskError on an unknown one."""
    name = OTHER_NAMES.get(split, split)
    if name not in SPLITS:
        raise TaskError(f"ALFWorld has no split {split!r}{did_you_mean(str(split), (*SPLITS, *OTHER_NAMES))}")
    return name


class Tree:
    """Official games: ``<split>/<task folder>/<trial folder>/game.tw-pddl``; the folders name the task."""

    def __init__(self, folder: Path):
        inner = folder / "json_2.1.1"
        self._folder = inner if inner.is_dir() else folder
        if not any((self._folder / split).is_dir() for split in SPLITS):
            raise DataError(
                f"holds none of {', '.join(SPLITS)}; name the folder that alfworld-download filled",
                file=folder,
            )
        self._panels: dict[str, TaskPanel] = {}
        self._generated = (self._folder / MANIFEST).is_file()
        self.game = lru_cache(maxsize=1_024)(self._game)

    def describe(self) -> str:
        counts = {split: len(list(self._files(split))) for split in self.splits()}
        kind = f"{GENERATED} in files" if self._generated else "official games"
        return f"{kind}: " + ", ".join(f"{split} {count}" for split, count in counts.items())

    def splits(self) -> tuple[str, ...]:
        """The splits that are here."""
        return tuple(split for split in SPLITS if (self._folder / split).is_dir())

    def survey(self, split: str) -> Survey:
        """What a split holds. Raises DataError on a broken file."""
        panel, files = self.panel(split), list(self._files(split))
        return Survey(
            panel=panel,
            kinds=dict(Counter(task.split("/")[1].split("-")[0] for task in panel)),
            unsolvable=len(files) - len(panel),
            left_out=sum(1 for _ in (self._folder / split).glob(f"*/*/{FILE}")) - len(files),
        )

    def _files(self, split: str) -> Iterator[Path]:
        for path in sorted((self._folder / split).glob(f"*/*/{FILE}")):
            if not any(word in path.parent.parent.name for word in _SKIPPED):
                yield path

    def panel(self, split: str) -> TaskPanel:
        name = split_name(split)
        if not (self._folder / name).is_dir():
            raise TaskError(f"{self._folder} has no games for the split {name}.")
        if name not in self._panels:
            keys = self._keys(name)
            env = GENERATED_ENV if self._generated else "alfworld"
            self._panels[name] = TaskPanel(env, name, tuple(keys), tuple(keys.values()))
        return replace(self._panels[name], split=split)

    def _keys(self, split: str) -> dict[str, str]:
        """Task id -> content key of every solvable game. Files that have not changed are not read again."""
        place = hashlib.sha256(str(self._folder.resolve()).encode()).hexdigest()[:16]
        store = cache_root() / "alfworld" / f"index-{split}-{place}.json"
        try:
            known = json.loads(store.read_bytes())
        except (OSError, ValueError):
            known = {}
        found: dict[str, list[Any]] = {}
        for path in self._files(split):
            stat, task = path.stat(), f"{split}/{path.parent.parent.name}/{path.parent.name}"
            entry = known.get(task) if isinstance(known, dict) else None
            if not isinstance(entry, list) or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
                data = read_data(path)
                if not isinstance(data, dict):
                    raise DataError("is no JSON object", file=path)
                entry = [stat.st_size, stat.st_mtime_ns, content_key(data), bool(data.get("solvable", True))]
            found[task] = entry
        if found != known:
            with contextlib.suppress(OSError):  # a read-only cache only costs time
                write_json(store, found)
        return {task: entry[2] for task, entry in found.items() if entry[3]}

    def _game(self, task_id: str) -> Game:
        return read_game(self.path(task_id))

    def path(self, task_id: str) -> Path:
        """The file of a game. Raises TaskError on an unknown task."""
        parts = task_id.split("/")
        path = self._folder.joinpath(*parts, FILE)
        if len(parts) != 3 or parts[0] not in SPLITS or ".." in parts or not path.is_file():
            raise TaskError(
                f"ALFWorld has no game {task_id!r} in {self._folder}; ids look like "
                "valid_unseen/<task folder>/<trial folder>."
            )
        return path


def split_sizes(games: int) -> dict[str, int]:
    """How many generated games each split has when ``train`` has ``games``."""
    return {split: games if split == "train" else max(10, games // 4) for split in SPLITS}


class Households:
    """Generated games: ``games`` for training, a quarter of that (at least 10) for each other split."""

    def __init__(self, games: int, seed: int):
        self._seed = seed
        self._counts = split_sizes(games)
        self._numbers: dict[str, dict[str, int]] = {}
        self._panels: dict[str, TaskPanel] = {}
        self.game = lru_cache(maxsize=1_024)(self._game)

    def describe(self) -> str:
        return f"{GENERATED}, seed {self._seed}: {self._counts['train']} for training"

    def panel(self, split: str) -> TaskPanel:
        name = split_name(split)
        if name not in self._panels:
            made = [household(name, number, self._seed) for number in range(self._counts[name])]
            self._numbers[name] = {home.id: number for number, home in enumerate(made)}
            self._panels[name] = TaskPanel(
                GENERATED_ENV,
                name,
                tuple(home.id for home in made),
                tuple(content_key(home.data) for home in made),
            )
        return replace(self._panels[name], split=split)

    def _game(self, task_id: str) -> Game:
        split = task_id.split("/", 1)[0]
        if split in SPLITS:
            self.panel(split)
            number = self._numbers[split].get(task_id)
            if number is not None:
                return game_from(household(split, number, self._seed).data, task_id)
        raise TaskError(
            f"ALFWorld has no generated game {task_id!r} with these settings; ids look like "
            f"{self.panel('valid_unseen').ids[0]}."
        )
