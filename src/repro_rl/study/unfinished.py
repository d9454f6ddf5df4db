"""Episodes of an evaluation that is under way: written as they end, and not played again.

Every rank writes a file of its own, and reads all of them: another number of processes may continue.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.config import RunConfig, is_api
from repro_rl.config.memory_settings import with_default_memory
from repro_rl.demos.incontext import InContextDemos
from repro_rl.demos.store import trajectory_from_record
from repro_rl.errors import DataError
from repro_rl.files import UnfinishedRows, check_record, key_of, rows_of
from repro_rl.files.records import Finite, Flag, Text
from repro_rl.policy.http.identity import server_identity
from repro_rl.policy.loading.checksums import fingerprint
from repro_rl.rollout.record import or_nan, or_null, trajectory_record
from repro_rl.rollout.record_schema import TrajectoryRecord
from repro_rl.rollout.reflection import NO_ANSWER
from repro_rl.run.lineage import judge_fingerprint
from repro_rl.run.templates import prompt_digests
from repro_rl.text.digests import OWN, PACKAGE
from repro_rl.types import Completion, Trajectory, no_completion

Episode = tuple[str, int]  # task id and number of the rollout


class _KeptReflection(TypedDict):
    """What a record does not hold of a reflection."""

    shortened: Flag
    entropy: Finite | None


class _Kept(TypedDict):
    """A row of ``kept``."""

    episode: TrajectoryRecord
    shortened: list[Text]  # one a step
    reflection: _KeptReflection | None


def evaluation_keys(
    config: RunConfig, model: Path, digest: str, judge: bool, shown: InContextDemos | None
) -> tuple[str, ...]:
    """The key of what decides the episodes, first: those of anything else are not continued.

    ``digest``: of the panel; ``shown``: the demonstrations in prompts. How the work was cut to fit into
    memory, or computed, plays no part. The other keys are those of results of older versions, where it did,
    and where the package's own templates were not told apart.
    """
    init = config.reference_judge
    # Its path alone may lead to other weights.
    frozen = judge_fingerprint(init, model) if judge and init is not None else ""
    # Settings alone, and their paths, may lead to other prompts.
    templates = prompt_digests(config.prompt, config.method.reflect)
    settings = {
        "model": fingerprint(model) or str(model),
        "server": server_identity(config.api, config.prompt.reflect_form) if is_api(model) else None,
        "panel": digest,
        "judge": [judge, init, *([frozen] if frozen else ())],
        "shown": None
        if shown is None
        else [shown.labels, shown.count, shown.seed, [trajectory_record(t, 0) for t in shown.experts]],
        **({OWN: templates[OWN]} if OWN in templates else {}),
        **config.model_dump(mode="json", include={"seed", "env", "policy", "prompt", "method", "eval"}),
    }
    policies = (with_default_memory(config.policy), config.policy)
    olders = [
        key_of({**settings, "policy": policy.model_dump(mode="json", exclude={"kernels"})})
        for policy in policies
    ]
    keys = [key_of([older, templates[PACKAGE]]) for older in olders]
    return tuple(dict.fromkeys((*keys, *olders)))


class UnfinishedEvaluation:
    """Episodes of the evaluation ``name`` in a run's ``trajectories``.

    ``key``: see ``evaluation_keys``. ``dtype``: in which the model computes, "" where that is unknown.
    ``policy.dtype=auto`` is another one on another machine, and an evaluation is of one alone.
    """

    def __init__(self, trajectories: Path, name: str, key: str, rank: int, dtype: str = ""):
        self.key = key
        self._folder, self._prefix = trajectories, f"eval-{name}.unfinished-"
        own = key_of([key, dtype]) if dtype else key  # of an API model as in older versions: calls cost money
        self._own = UnfinishedRows(trajectories / f"{self._prefix}{rank}.jsonl", own)

    def begin(self) -> dict[Episode, Trajectory]:
        """The episodes that are there. Raises OSError where none can be added, DataError for foreign rows."""
        episodes: dict[Episode, Trajectory] = {}
        for path in self._files():
            for number, row in enumerate(rows_of(path, self._own.key), start=1):
                try:
                    check_record(_Kept, row)
                    trajectory = restored(row)
                except (DataError, KeyError, TypeError, ValueError) as error:
                    found = error if isinstance(error, DataError) else repr(error)
                    raise DataError(
                        f"not an episode as evaluations keep it ({found}); delete the file to play again",
                        file=path,
                        record=f"row {number} of this evaluation",
                    ) from error
                name = (trajectory.task_id, trajectory.rollout)
                earlier = episodes.get(name)
                if earlier is None or earlier.reflection is None:
                    episodes[name] = trajectory
        self._own.open()
        return episodes

    def add(self, trajectory: Trajectory) -> None:
        """Keep an episode. One that broke off, or whose judge did not answer, is tried again instead."""
        reflection = trajectory.reflection
        if trajectory.failed or (reflection is not None and NO_ANSWER in reflection.defects):
            return
        self._own.add(kept(trajectory))

    def close(self) -> None:
        """Stop writing; what was written stays for the next command."""
        self._own.close()

    def remove(self) -> None:
        """The result is written: remove the files of all ranks."""
        self._own.close()
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(p for p in self._folder.iterdir() if p.name.startswith(self._prefix))


def kept(trajectory: Trajectory) -> dict[str, Any]:
    """An episode as a row: its record, and what an evaluation counts beside it."""
    reflection = trajectory.reflection
    return {
        "episode": trajectory_record(trajectory, 0),
        "shortened": [step.shortened for step in trajectory.steps],
        "reflection": None
        if reflection is None
        else {"shortened": reflection.shortened, "entropy": or_null(reflection.completion.entropy)},
    }


def restored(row: dict[str, Any]) -> Trajectory:
    """The episode of ``kept``, with the counts of its tokens but without their ids.

    Raises KeyError, TypeError or ValueError for something else.
    """
    record = row["episode"]
    trajectory = trajectory_from_record(record)
    for step, written, shortened in zip(trajectory.steps, record["steps"], row["shortened"], strict=True):
        step.completion = _completion(written, written["entropy"])
        step.shortened = shortened
    reflection, more = trajectory.reflection, row["reflection"]
    if reflection is not None:
        reflection.completion = _completion(record["reflection"], more["entropy"])
        reflection.shortened = more["shortened"]
    return trajectory


def _completion(record: dict[str, Any], entropy: float | None) -> Completion:
    return replace(
        no_completion(),
        text=record["text"],
        finished=record["finished"],
        entropy=or_nan(entropy),
        counted=(record["prompt_tokens"], record["tokens"]),
    )
