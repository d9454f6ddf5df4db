"""A tiny RL run or warmup with trackers, as a process that can be killed."""

from __future__ import annotations

import os
import sys

from repro_rl.config import load_config
from repro_rl.run.callbacks import Callback
from repro_rl.train import run_training, run_warmup

KILL = "TRACKED_RUN_KILL"  # environment variable: the row at which the process dies like by SIGKILL


class Killer(Callback):
    """Ends the process at once, without any clean-up, when a row has been logged and sent."""

    def on_row(self, row: dict) -> None:
        if row["iteration"] == int(os.environ.get(KILL, 0)):
            os._exit(137)


if __name__ == "__main__":
    source, out, *demos = sys.argv[1:]
    config = load_config(source)
    if demos:
        run_warmup(config, demos[0], out)
    else:
        run_training(config, out, on_text=print)
