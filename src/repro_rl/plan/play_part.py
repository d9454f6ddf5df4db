"""``python -m repro_rl.plan.play_part``: iterations of the config on standard input, in an own process.

Prints one JSON object: seconds of an iteration, peak bytes of the process, tokens of an answer, steps of an
episode. Nothing outside a temporary folder is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from repro_rl.config import parse_config
from repro_rl.plan.probe import clock, memory_peak

REPEATS = 2  # the shorter of so many iterations counts


def main() -> None:
    from repro_rl.train.loop import RLRun

    config = parse_config(json.load(sys.stdin))
    row: dict[str, Any] = {}
    times = []
    with tempfile.TemporaryDirectory() as folder:
        run = RLRun(config, Path(folder) / "run")
        run.step()  # fills caches, allocates the optimizer's moments
        for _ in range(REPEATS):
            begin = clock()
            row = run.step()
            times.append(clock() - begin)
    print(
        json.dumps(
            {
                "seconds": min(times),
                "memory": memory_peak(),
                "tokens": row["rollout/tokens"],
                "length": row["rollout/length"],
            }
        )
    )


if __name__ == "__main__":
    main()
