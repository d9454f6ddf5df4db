"""Training games set aside for evaluation, where the official validation games are not at hand.

Of every task type the games with the smallest content keys are set aside. So the choice does not depend on
folder names or on a seed, and is the same for everyone who has these games.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from repro_rl.envs.alfworld.sources import MANIFEST, GameFolder
from repro_rl.errors import ConfigError
from repro_rl.files import read_json, write_folder, write_json

TRAIN, VALIDATION, TEST = "train", "valid_seen", "valid_unseen"
ORDER = (TEST, VALIDATION, TRAIN)  # from the smallest content key on


def hold_out(
    folder: Path,
    out: Path,
    *,
    test: float = 0.25,
    validation: float = 0.1,
    types: Sequence[str] = (),
    on_done: Callable[[int], None] = lambda count: None,
) -> dict[str, int]:
    """Copy the training games of ``folder`` to ``out`` as ``train``, ``valid_seen`` and ``valid_unseen``.

    ``test``, ``validation``: the shares of each task type's games that become valid_unseen and valid_seen.
    ``types``: names of task types; games of others are not copied (default: all are). A type's held-out games
    are the same with and without the others.
    Unsolvable games, and those that ALFWorld leaves out, are not copied. Generated games stay marked as such,
    in ``out`` with ``held_out`` in their manifest. ``out`` is written whole or not at
    all; ``on_done`` gets the number of games so far. Returns the games by split. Raises ConfigError for
    shares that leave no training games, a type without games and an ``out`` that is not empty. Raises
    DataError for broken games.
    """
    if test < 0 or validation < 0 or test + validation >= 1:
        raise ConfigError(
            f"Shares of {test} and {validation} leave no training games; their sum must be < 1."
        )
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; name a new folder.")
    games = GameFolder(folder)
    splits = split_by_content(games, test, validation, types)

    def fill(temporary: Path) -> None:
        done = 0
        for split, tasks in splits.items():
            for task in tasks:
                source = games.path(task).parent
                target = temporary / "json_2.1.1" / split / task.partition("/")[2]
                shutil.copytree(source, target, copy_function=shutil.copyfile)
                done += 1
                on_done(done)
        if games.manifest is not None:
            content = {**read_json(games.manifest), "held_out": {"test": test, "validation": validation}}
            write_json(temporary / "json_2.1.1" / MANIFEST, content)

    write_folder(out, fill)
    return {split: len(tasks) for split, tasks in splits.items()}


def split_by_content(
    games: GameFolder, test: float, validation: float, types: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Task ids of the training split by the split they shall be in, see ``hold_out``.

    Raises ConfigError for a type without games.
    """
    panel = games.panel(TRAIN)
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for task, content in zip(panel.ids, panel.contents, strict=True):
        kinds[task.split("/")[1].split("-")[0]].append((content, task))
    if unknown := sorted(set(types) - set(kinds)):
        raise ConfigError(
            f"No training game is of the type {unknown[0]!r}; there are {', '.join(sorted(kinds))}."
        )
    splits: dict[str, list[str]] = {split: [] for split in ORDER}
    for kind in sorted(set(types) or kinds):
        tasks = [task for _, task in sorted(kinds[kind])]
        first = round(test * len(tasks))
        second = first + round(validation * len(tasks))
        for split, part in zip(ORDER, (tasks[:first], tasks[first:second], tasks[second:]), strict=True):
            splits[split] += part
    return {split: tasks for split, tasks in splits.items() if tasks}
