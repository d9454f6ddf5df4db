"""Whole iterations with fewer groups, and the line through them.

Each is measured in a process of its own (this module's ``main``), so that only the run's memory is counted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import parse_config
from repro_rl.errors import PreflightError
from repro_rl.interrupts import child
from repro_rl.plan.resources import clock, memory_peak
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun

OUR_ERROR = re.compile(r"^repro_rl\.errors\.\w+: ", re.MULTILINE)
REPEATS = 2  # iterations, of which the shortest counts


@dataclass(frozen=True, slots=True)
class MeasuredIteration:
    """One training iteration, measured on this machine."""

    groups: int
    seconds: float
    memory: float  # peak bytes of the process


def probe_groups(groups: int, minibatches: int) -> tuple[int, int] | None:
    """A quarter and half of ``groups``, in whole mini-batches; None where there are too few."""
    small = minibatches * max(1, groups // (4 * minibatches))
    return (small, 2 * small) if 2 * small <= groups else None


def extrapolate(smaller: MeasuredIteration, larger: MeasuredIteration, groups: int) -> MeasuredIteration:
    """An iteration with ``groups`` groups: the straight line through two others, never falling."""
    share = (groups - smaller.groups) / (larger.groups - smaller.groups)
    return MeasuredIteration(
        groups,
        smaller.seconds + share * max(larger.seconds - smaller.seconds, 0.0),
        smaller.memory + share * max(larger.memory - smaller.memory, 0.0),
    )


def measure_iteration(
    settings: Mapping[str, Any], groups: int, log: Callable[[str], None]
) -> MeasuredIteration:
    """A training iteration of the run that ``settings`` (a config as JSON data) describe, in a new process.

    The model of ``train.init`` is read, never written. Raises PreflightError where the run fails.
    """
    train = {**settings["train"], "groups": groups, "record_every": 0, "validate_every": 0}
    with child(
        [sys.executable, "-m", "repro_rl.plan.probe_iterations"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        printed, problems = process.communicate(json.dumps({**settings, "train": train}))
    if process.returncode:
        raise PreflightError(f"The probe failed: {_reason(problems)}")
    row = json.loads(printed.splitlines()[-1])
    log(f"probe: an iteration of {groups} groups took {row['seconds']:.2f} s")
    return MeasuredIteration(groups, row["seconds"], row["memory"])


def _reason(problems: str) -> str:
    """What ended the process, by its standard error: the message of an error of ours, else the last line."""
    _, *messages = OUR_ERROR.split(problems)
    return messages[-1].strip() if messages else (problems.strip() or "killed").splitlines()[-1]


def main() -> None:
    """Measure iterations of the config on standard input; prints a JSON object of seconds and peak bytes.

    Nothing outside a temporary folder is written.
    """
    config = parse_config(json.load(sys.stdin))
    times = []
    with tempfile.TemporaryDirectory() as folder, closing(set_up(config)) as setup:
        run = RLRun(setup, Path(folder) / "run")
        with closing(run.sampler):
            run.step()  # not counted: it fills caches and allocates the optimizer's moments
            for _ in range(REPEATS):
                begin = clock()
                run.step()
                times.append(clock() - begin)
    print(json.dumps({"seconds": min(times), "memory": memory_peak()}))


if __name__ == "__main__":
    main()
