"""Sources of games: a folder of game files, or generated households."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from repro_rl.envs.alfworld.game import Game, content_key, game_from, read_data, read_game
from repro_rl.envs.alfworld.generated_index import generated_index
from repro_rl.envs.alfworld.households import SPLITS, household
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import DataError, TaskError, did_you_mean
from repro_rl.files import cache_root, read_json, write_json

SPLIT_ALIASES = {"validation": "valid_seen", "test": "valid_unseen"}
FILE = "game.tw-pddl"
ADVICE = "name the folder that alfworld-download or 'repro-rl data alfworld generate' filled"
MANIFEST = "households.json"  # beside the split folders of generated games (export.py)
GENERATED = "generated households"
GENERATED_ENV = "alfworld-generated"  # environment name in the panels of such games
_SKIPPED = ("movable", "Sliced")  # tasks that ALFWorld leaves out


@dataclass(slots=True, frozen=True)
class Survey:
    """The contents of one split of a GameFolder."""

    panel: TaskPanel
    kinds: dict[str, int]  # task type -> games
    unsolvable: int  # games marked as unsolvable; not in the panel
    left_out: int  # games that ALFWorld itself leaves out; not in the panel


class GameSource(Protocol):
    """Games by task id."""

    def panel(self, split: str) -> TaskPanel: ...
    def game(self, task_id: str) -> Game: ...
    def describe(self) -> str: ...


@lru_cache(maxsize=8)
def game_source(folder: Path | None, games: int, seed: int) -> GameSource:
    """The game files below ``folder``, or ``games`` generated training games. One instance per process."""
    return GeneratedGames(games, seed) if folder is None else GameFolder(folder)


def split_name(split: str) -> str:
    """The official name of a split. Raises TaskError on an unknown one."""
    name = SPLIT_ALIASES.get(split, split)
    if name not in SPLITS:
        nearest = did_you_mean(str(split), (*SPLITS, *SPLIT_ALIASES))
        raise TaskError(f"ALFWorld has no split {split!r}{nearest}")
    return name


class GameFolder:
    """Game files: ``<split>/<task folder>/<trial folder>/game.tw-pddl``; the folders name the task."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            wrong = "is no folder" if folder.exists() else "does not exist"
            raise DataError(f"{wrong}; {ADVICE}", file=folder)
        inner = folder / "json_2.1.1"
        self._folder = inner if inner.is_dir() else folder
        if not any((self._folder / split).is_dir() for split in SPLITS):
            raise DataError(f"holds none of {', '.join(SPLITS)}; {ADVICE}", file=folder)
        self._panels: dict[str, TaskPanel] = {}
        manifest = self._folder / MANIFEST
        self.manifest = manifest if manifest.is_file() else None  # of generated games
        self.game = lru_cache(maxsize=1_024)(self._game)

    def describe(self) -> str:
        counts = {split: len(list(self._files(split))) for split in self.splits()}
        kind = f"{GENERATED} in files" if self.manifest else "official games"
        return f"{kind}: " + ", ".join(f"{split} {count}" for split, count in counts.items())

    def splits(self) -> tuple[str, ...]:
        """The splits that the folder has."""
        return tuple(split for split in SPLITS if (self._folder / split).is_dir())

    def unfinished(self, *splits: str) -> dict[str, tuple[int, int]]:
        """Splits that 'data alfworld generate' has not filled: how many games are there, of how many.

        ``splits``: those whose games are counted; by default all. Raises DataError for a broken manifest.
        """
        content = {} if self.manifest is None else read_json(self.manifest)
        if not isinstance(content.get("games"), int) or "held_out" in content:
            return {}
        sizes = split_sizes(content["games"])
        counts = {split: (len(list(self._files(split))), sizes[split]) for split in splits or sizes}
        return {split: (there, size) for split, (there, size) in counts.items() if there < size}

    def _interrupted(self, split: str) -> str:
        """What is missing of a split that ``unfinished`` names, as sentences; empty for any other split."""
        there, size = self.unfinished(split).get(split, (0, 0))
        if not size:
            return ""
        return (
            f" 'repro-rl data alfworld generate' was interrupted: {split} has {there:,} of {size:,} games. "
            "Repeat that command."
        )

    def survey(self, split: str) -> Survey:
        """Count a split's games. Raises DataError on a broken file."""
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
        """The solvable games of a split; warns where 'generate' was interrupted before it was full."""
        name = split_name(split)
        if name not in self._panels:
            interrupted = self._interrupted(name)
            if not (self._folder / name).is_dir():
                raise TaskError(f"{self._folder} has no games for the split {name}.{interrupted}")
            if interrupted:
                warnings.warn(f"{self._folder} is not complete.{interrupted}", stacklevel=2)
            keys = self._keys(name)
            env = GENERATED_ENV if self.manifest else "alfworld"
            self._panels[name] = TaskPanel(env, name, tuple(keys), tuple(keys.values()))
        return replace(self._panels[name], split=split)

    def _keys(self, split: str) -> dict[str, str]:
        """Task id -> content key of every solvable game. Unchanged files are not read again."""
        folder_key = hashlib.sha256(str(self._folder.resolve()).encode()).hexdigest()[:16]
        index = cache_root() / "alfworld" / f"index-{split}-{folder_key}.json"
        try:
            cached = read_json(index)
        except DataError:  # none yet, or a broken one: made again
            cached = {}
        entries: dict[str, list[Any]] = {}  # task id -> size, mtime, content key, solvable
        for path in self._files(split):
            stat, task = path.stat(), f"{split}/{path.parent.parent.name}/{path.parent.name}"
            entry = cached.get(task)
            if not _is_entry(entry) or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
                data = read_data(path)
                if not isinstance(data, dict):
                    raise DataError("is no JSON object", file=path)
                entry = [stat.st_size, stat.st_mtime_ns, content_key(data), bool(data.get("solvable", True))]
            entries[task] = entry
        if entries != cached:
            with contextlib.suppress(OSError):  # without a writable cache the files are read again
                write_json(index, entries)
        return {task: entry[2] for task, entry in entries.items() if entry[3]}

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


def _is_entry(entry: object) -> TypeGuard[list[Any]]:
    """Whether a value of the index has the types of an entry: size, mtime, content key, solvable."""
    kinds = [int, int, str, bool]
    return isinstance(entry, list) and [type(value) for value in entry] == kinds


def split_sizes(games: int) -> dict[str, int]:
    """How many generated games each split has when ``train`` has ``games``."""
    return {split: games if split == "train" else max(10, games // 4) for split in SPLITS}


class GeneratedGames:
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
            games = generated_index(name, self._counts[name], self._seed)
            self._numbers[name] = {game.id: number for number, game in enumerate(games)}
            ids, contents = tuple(game.id for game in games), tuple(game.content for game in games)
            self._panels[name] = TaskPanel(GENERATED_ENV, name, ids, contents)
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
