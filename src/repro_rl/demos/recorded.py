"""Episodes that runs have recorded while training, to be labelled: what a judge will have to judge.

Those of the noisy expert fail in other ways than a policy does, which repeats what is impossible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from repro_rl.config import EnvSection
from repro_rl.demos.environment import check_recorded
from repro_rl.demos.store import read_episodes
from repro_rl.errors import DataError
from repro_rl.files import lines_of
from repro_rl.rollout.record import training_files
from repro_rl.types import Trajectory


def recorded_episodes(
    runs: Sequence[str], task_ids: Collection[str], env: EnvSection | None = None
) -> list[Trajectory]:
    """The training episodes in the folders of ``runs``, without the judgements that they had.

    Episodes that broke off are left out. Raises DataError for a run without recorded episodes, and for files
    that cannot be read. It does so too for an episode of a task that is not in ``task_ids``: it may be held
    out. ``env``: the settings to play under, None where they are not known. Raises ConfigError for a run
    under others, see ``check_recorded``.
    """
    episodes: list[Trajectory] = []
    allowed = frozenset(task_ids)
    for run in runs:
        if env is not None:
            check_recorded(Path(run), env)
        files = training_files(Path(run))
        if not files:
            raise DataError("no recorded training episodes; train with train.record_every=1", file=Path(run))
        for file in files:
            for episode in read_episodes(file):
                if episode.task_id not in allowed:
                    raise DataError(
                        "is no task of demos.split, and may be held out; name runs on the same tasks",
                        file=file,
                        record=episode.task_id,
                    )
                if episode.failed or not episode.steps:
                    continue
                episode.reflection = None
                episodes.append(episode)
    return episodes


def recorded_digests(runs: Sequence[str]) -> list[str]:
    """Of each run a sha256 of its recorded training episodes, however they are compressed.

    A run that has trained on has another one. Raises DataError for a file that cannot be read.
    """
    digests = []
    for run in runs:
        digest = hashlib.sha256()
        for file in training_files(Path(run)):
            for line in lines_of(file):
                digest.update(line.text.rstrip() + b"\n")
        digests.append(digest.hexdigest())
    return digests
