"""Writes generated households as files in the official layout, for both engines and the original packages.

``<folder>/json_2.1.1/<split>/<task folder>/<trial folder>/`` holds ``game.tw-pddl`` (the game) and
``traj_data.json`` (the fields by which the original package finds the game and its experts play it).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro_rl.envs.alfworld.game import MADE_BY, read_data, task_sentence
from repro_rl.envs.alfworld.household_tables import tables
from repro_rl.envs.alfworld.households import SPLITS, Household, household
from repro_rl.envs.alfworld.sources import FILE, MANIFEST, split_sizes
from repro_rl.errors import ConfigError, DataError
from repro_rl.files import sweep_temporaries, write_json


def write_tree(
    folder: Path, games: int, seed: int = 0, on_done: Callable[[int], None] = lambda count: None
) -> dict[str, int]:
    """Write ``games`` training games and a quarter of that (at least 10) for each other split.

    Returns the number of new files by split. Each file is written atomically, and existing files stay: a
    repeated call resumes, and a call with more games adds to the folder. ``on_done`` gets the number of games
    written so far. Raises ConfigError when ``games`` < 10, DataError when the folder holds other games.
    """
    if games < 10:
        raise ConfigError(f"ALFWorld: games={games}; write 10 or more.")
    inner = folder / "json_2.1.1"
    _claim(inner, games, seed)
    written = dict.fromkeys(SPLITS, 0)
    done = 0
    for split, count in split_sizes(games).items():
        for number in range(count):
            written[split] += _write(inner, household(split, number, seed))
            done += 1
            on_done(done)
    return written


def trajectory(home: Household) -> dict[str, Any]:
    """The content of ``traj_data.json``: the fields that the original package reads for text games."""
    _, folder, trial = home.id.split("/")
    _, object_type, _, target, _ = folder.split("-")
    lamp = target == tables().lamp
    return {
        "task_id": trial,
        "task_type": home.task_type,
        "pddl_params": {
            "object_target": object_type,
            "object_sliced": False,
            "parent_target": "" if lamp else target,
            "toggle_target": target if lamp else "",
            "mrecep_target": "",
        },
        "turk_annotations": {"anns": [{"task_desc": task_sentence(home.data["grammar"]), "high_descs": []}]},
    }


def _write(inner: Path, home: Household) -> bool:
    path = inner / home.id / FILE
    if path.is_file():
        return False
    sweep_temporaries(path.parent)
    write_json(path.with_name("traj_data.json"), trajectory(home))
    write_json(path, home.data)
    return True


def _claim(inner: Path, games: int, seed: int) -> None:
    """Write the folder's manifest. Raises DataError when the folder holds other games."""
    manifest = inner / MANIFEST
    if manifest.is_file():
        content = read_data(manifest)
        before = content if isinstance(content, dict) else {}
        if "held_out" in before:
            raise DataError("says that 'hold-out' split these games; choose another folder", file=manifest)
        if before.get("made_by") != MADE_BY or before.get("seed") != seed or before.get("games", 0) > games:
            raise DataError(
                f"says the folder is for {before.get('games')} games of seed {before.get('seed')} by "
                f"{before.get('made_by')}, which is not {games} of seed {seed} by {MADE_BY}; choose another "
                "folder",
                file=manifest,
            )
    elif any((inner / split).exists() for split in SPLITS):
        raise DataError("holds games that were not generated here; choose another folder", file=inner)
    write_json(manifest, {"made_by": MADE_BY, "games": games, "seed": seed})
