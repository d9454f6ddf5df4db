"""What the tests of dist run in several processes: ``two_processes.py PLAN.json``, one for each.

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
from repro_rl.dist.failures import rank_process
from repro_rl.dist.launcher import rank_and_world
from repro_rl.dist.ranks import Ranks
from repro_rl.errors import ReproError
from repro_rl.run.setup import join_ranks, set_threads


def fail_at(rank: int, iteration: int, how: str) -> None:
    """Let process ``rank`` be killed, or raise, when ``iteration`` would begin."""
    from repro_rl.train import RLRun

    step = RLRun.step

    def failing(run: RLRun) -> dict[str, Any]:
        if run.setup.ranks.rank == rank and run.iteration + 1 == iteration:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("boom")
        return step(run)

    RLRun.step = failing  # type: ignore[method-assign]


def wait_in_vain(ranks: Ranks, note: Path) -> None:
    """The first process waits a second, in place of its timeout, for one that never comes."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    ranks.gather("all are here")
    if ranks.first:
        assert dist.group.WORLD is not None
        print(f"waits {dist.group.WORLD._get_backend(torch.device('cpu')).options._timeout}", file=sys.stderr)
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1))
        try:
            ranks.gather("hello?")
        finally:
            note.write_text("gave up")
    while not note.exists():
        time.sleep(0.05)


def run_stage(stage: dict[str, Any], config: RunConfig) -> None:
    from repro_rl.study.evaluate import EvalRequest, evaluate
    from repro_rl.train import run_training, run_warmup

    out = Path(stage["out"])
    rows: list[dict[str, Any]] = []
    if stage["what"] == "warmup":
        run_warmup(config, Path(stage["demos"]), out, rows.append)
    elif stage["what"] == "train":
        run_training(config, out, rows.append)
    elif stage["what"] == "eval":
        evaluate(config, Path(stage["model"]), EvalRequest("both", out=out))
    rank, world = rank_and_world()
    seen = {"world": world, "rows": len(rows)}
    (out.parent / f"{out.name}-{stage['what']}-{rank}.json").write_text(json.dumps(seen))


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    if plan.get("fail"):
        fail_at(*plan["fail"])
    try:
        for stage in plan["stages"]:
            config = load_config(None, stage["settings"])
            set_threads(config.policy.threads)
            ranks = join_ranks(config)
            if stage["what"] == "wait":
                wait_in_vain(ranks, Path(stage["out"]))
            else:
                run_stage(stage, config)
    except ReproError as error:
        rank, _ = rank_and_world()
        print(f"process {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    with rank_process(rank_and_world()[1]):
        main()
