"""One process beside two: ``python benchmarks/data_parallel.py [-c RECIPE] [SECTION.KEY=VALUE]...``.

The same training iterations, once in one process and once in two (torchrun, gloo, CPU), turn by turn in one
run of this script. Of each the shortest counted iteration is printed. Processor seconds are those of the
busiest process: what an iteration takes where nothing else wants the cores. Wall seconds mean something only
on a machine with a free core for each process; the load beside them says whether it was one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from repro_rl.config import load_config

COUNTED = 2  # iterations that count, after one that fills the caches


def child(recipe: str, overrides: list[str], out: Path) -> None:
    """Train and write each counted iteration's wall and processor seconds, one file a process."""
    from repro_rl.run.setup import set_up
    from repro_rl.train import RLRun

    setup = set_up(load_config(recipe, overrides))
    run = RLRun(setup, out / "run")
    assert setup.ranks.world == int(os.environ.get("WORLD_SIZE", "1"))
    rows = []
    for _ in range(1 + COUNTED):
        begin, used = time.perf_counter(), time.process_time()
        row = run.step()
        rows.append(
            {
                "wall": time.perf_counter() - begin,
                "processor": time.process_time() - used,
                "rollout": row["time/rollout"],
                "update": row["time/update"],
                "loss": row["update/loss"],
            }
        )
    (out / f"rank-{setup.ranks.rank}.json").write_text(json.dumps(rows[1:]))


def measure(processes: int, recipe: str, overrides: list[str]) -> dict[str, Any]:
    """The shortest counted iteration with so many processes, by processor and by wall seconds."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*start, __file__, "--child", folder, "-c", recipe, *overrides],
            env={"OMP_NUM_THREADS": "1", **os.environ},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{processes} processes ended with {done.returncode}\n{done.stderr}")
        ranks = [json.loads((Path(folder) / f"rank-{r}.json").read_text()) for r in range(processes)]
    rows = [
        {
            "processor": max(row["processor"] for row in rows),
            "wall": max(row["wall"] for row in rows),
            "loss": rows[0]["loss"],
        }
        for rows in zip(*ranks, strict=True)
    ]
    return {
        "processor": min(row["processor"] for row in rows),
        "wall": min(row["wall"] for row in rows),
        "losses": [row["loss"] for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="SECTION.KEY=VALUE")
    parser.add_argument("-c", "--config", default="sokoban-tiny", metavar="RECIPE")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each, turn by turn")
    parser.add_argument("--init", help="model to start from  [default: untrained]")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.config, arguments.overrides, arguments.child)
        return
    from repro_rl.run.setup import set_up

    quick = ["policy.device=cpu", "policy.threads=1", "train.validate_every=0", "train.record_every=0"]
    with tempfile.TemporaryDirectory() as folder:
        settings = [*arguments.overrides, *quick]
        setup = set_up(load_config(arguments.config, settings))
        init = arguments.init or setup.initial_model((), Path(folder) / "model")
        settings.append(f"train.init={init}")
        measurements: dict[int, list[dict[str, Any]]] = {1: [], arguments.processes: []}
        print(f"{'processes':<11}{'processor s':>12}{'wall s':>9}{'load':>7}")
        for _ in range(arguments.rounds):
            for processes, measured in measurements.items():
                row = measure(processes, arguments.config, settings)
                measured.append(row)
                load = os.getloadavg()[0]
                print(f"{processes:<11}{row['processor']:>12.2f}{row['wall']:>9.2f}{load:>7.1f}", flush=True)
    one, many = measurements[1], measurements[arguments.processes]
    for name in ("processor", "wall"):
        ratio = min(row[name] for row in one) / min(row[name] for row in many)
        print(f"{name} seconds, 1 over {arguments.processes}: {ratio:.2f}")
    apart = max(abs(a - b) for a, b in zip(one[0]["losses"], many[0]["losses"], strict=True))
    print(f"losses apart by at most {apart:.1e}")


if __name__ == "__main__":
    main()
