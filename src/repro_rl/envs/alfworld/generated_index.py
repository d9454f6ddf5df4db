"""Ids and content keys of generated games, kept in the cache: to make thousands of games takes seconds."""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from repro_rl.envs import draws
from repro_rl.envs.alfworld.game import content_key
from repro_rl.envs.alfworld.households import household
from repro_rl.errors import DataError
from repro_rl.files import cache_root, check_record, read_json, write_json


class GeneratedGame(NamedTuple):
    """What a panel holds of a generated game."""

    id: str
    content: str  # ``content_key``


def generated_index(split: str, count: int, seed: int) -> list[GeneratedGame]:
    """The first ``count`` games of ``split``. Those that another process has made are read from the cache.

    A file of the cache belongs to one version of the generator's own code and tables. Without a writable
    cache all games are made again.
    """
    file = cache_root() / "alfworld" / f"generated-{split}-{seed}-{_generator()}.json"
    games = _read(file)
    if len(games) < count or (count and games[count - 1] != _made(split, count - 1, seed)):
        games = [_made(split, number, seed) for number in range(count)]
        with contextlib.suppress(OSError):
            write_json(file, {"games": games})
    return games[:count]


def _made(split: str, number: int, seed: int) -> GeneratedGame:
    home = household(split, number, seed)
    return GeneratedGame(home.id, content_key(home.data))


def _read(file: Path) -> list[GeneratedGame]:
    """The games that a file of the cache holds; none where there is no such file, or a broken one."""
    try:
        games = read_json(file, fields={"games": list})["games"]
        return check_record(list[GeneratedGame], games, file=file)
    except DataError:
        return []


@cache
def _generator() -> str:
    """A digest of the code and the tables that games are made by."""
    digest = hashlib.sha256(Path(draws.__file__).read_bytes())
    for file in sorted(Path(__file__).parent.iterdir()):
        if file.suffix in (".py", ".yaml", ".pddl"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
