"""What tests/test_parallel.py runs in several processes: ``two_processes.py PLAN.json``, one for each.

The plan is a list of stages, and optionally a process that is to fail in the course of an iteration.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig, load_config
from repro_rl.errors import ReproError
from repro_rl.processes import place
from repro_rl.train.build import set_threads
from repro_rl.train.parallel import Ranks, join


def fail_at(rank: int, iteration: int, how: str) -> None:
    """Let process ``rank`` be killed, or raise, when ``iteration`` would begin."""
    from repro_rl.train.loop import RLRun

    step = RLRun.step

    def failing(run: RLRun) -> dict[str, Any]:
        if run.ranks.rank == rank and run.iteration + 1 == iteration:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("boom")
        return step(run)

    RLRun.step = failing  # type: ignore[method-assign]


def wait_in_vain(ranks: Ranks, note: Path) -> None:
    """The first process waits a second for one that never comes."""
    from datetime import timedelta

    import torch.distributed as dist

    ranks.gather("all are here")
    if ranks.first:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1))
        try:
            ranks.gather("hello?")
        finally:
            note.write_text("gave up")
    while not note.exists():
        time.sleep(0.05)


def run_stage(stage: dict[str, Any], config: RunConfig) -> None:
    from repro_rl.study.evaluate import evaluate
    from repro_rl.train.loop import run_training
    from repro_rl.train.warmup import run_warmup

    out = Path(stage["out"])
    rows: list[dict[str, Any]] = []
    if stage["what"] == "warmup":
        run_warmup(config, Path(stage["demos"]), out, rows.append)
    elif stage["what"] == "train":
        run_training(config, out, rows.append)
    elif stage["what"] == "eval":
        evaluate(config, Path(stage["model"]), name="both", out=out)
    rank, world = place()
    seen = {"world": world, "rows": len(rows)}
    (out.parent / f"{out.name}-{stage['what']}-{rank}.json").write_text(json.dumps(seen))


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    if plan.get("fail"):
        fail_at(*plan["fail"])
    try:
        for stage in plan["stages"]:
            config = load_config(None, stage["settings"])
            set_threads(config)
            ranks = join(config)
            if stage["what"] == "wait":
                wait_in_vain(ranks, Path(stage["out"]))
            else:
                run_stage(stage, config)
    except ReproError as error:
        print(f"process {place()[0]}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
