"""Runs of two ranks as real processes, and what must be equal to the run of one."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from repro_rl.rollout import read_trajectories

SCRIPT = Path(__file__).parent / "two_processes.py"


PATIENCE = 600  # seconds; only a hang takes so long, however busy the machine is


# Overrides of a run small enough for several of them, with all that ranks share.
RUN = [
    *("method=repro", "method.rehearsal=6", "method.reflect_share=0.5"),
    *("train.groups=6", "train.group_size=4", "train.minibatches=2", "train.epochs=2"),
    *("train.micro_tokens=512", "train.iterations=3", "train.save_every=1", "train.keep=9"),
    *("train.validate_every=2", "train.record_every=1", "eval.validation_tasks=5", "eval.tasks=7"),
]


def torchrun(plan: Path) -> list[str]:
    """torchrun of this interpreter with two processes that compute on the CPU."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(str(SCRIPT), str(plan)),
    ]


def launch(
    plan: Path, content: dict[str, Any], more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    plan.write_text(json.dumps(content))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= more or {}
    return subprocess.run(
        torchrun(plan), env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def metric_rows(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds" and not k.startswith("time/")} for row in rows]


def assert_close_rows(one: Path, two: Path) -> None:
    first, second = metric_rows(one), metric_rows(two)
    assert first
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert math.isclose(value, b[name], rel_tol=1e-4, abs_tol=1e-5), (name, value, b[name])


def assert_close_weights(one: Path, two: Path, moved_from: Path) -> None:
    """Apart by the order of sums only: next to nothing beside what training has changed."""
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    start = load_file(moved_from / "model.safetensors")
    apart = max(float((first[name] - second[name]).abs().max()) for name in first)
    moved = max(float((first[name] - start[name]).abs().max()) for name in first)
    assert apart < 2e-5
    assert moved > 1e-3


def assert_same_records(one: Path, two: Path) -> None:
    """Token for token: texts, actions, rewards; entropies and advantages up to the order of sums."""

    def close(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) if isinstance(a, float) else bool(a == b)

    first, second = list(read_trajectories(one)), list(read_trajectories(two))
    assert first
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert close(a, b)


def start_by_hand(plan: Path) -> list[subprocess.Popen[str]]:
    """Two processes without a launcher that would end the other when one has failed."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(plan)],
            env=os.environ
            | shared
            | {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def in_two(plan: Path) -> list[tuple[int, str]]:
    """Exit code and stderr of two processes of ``start_by_hand``; again where another took their port."""
    outcomes = ends(start_by_hand(plan))
    return ends(start_by_hand(plan)) if "EADDRINUSE" in outcomes[0][1] else outcomes


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and stderr of each."""
    outcomes = []
    try:
        for process in processes:
            _, stderr = process.communicate(timeout=PATIENCE)
            outcomes.append((process.returncode, stderr))
    finally:
        for process in processes:
            process.kill()
    return outcomes
