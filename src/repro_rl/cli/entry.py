"""The entry point, and how errors reach a person."""

from __future__ import annotations

import os
import sys

import repro_rl.cli.commands  # adds the commands to app
import repro_rl.cli.compare  # adds compare
import repro_rl.cli.pilot  # adds pilot
import repro_rl.cli.plan
import repro_rl.cli.progress  # adds progress
import repro_rl.cli.verl  # adds verl
import repro_rl.cli.view  # noqa: F401
from repro_rl.cli.app import app
from repro_rl.cli.show import console, error_console
from repro_rl.errors import ConfigError, ReproError, TrainingStopped
from repro_rl.processes import place

SEVERAL = ("train", "warmup", "eval")  # commands that share their work between processes


def main() -> None:
    """Entry point. Errors of the package end with status 2 and no traceback; Ctrl-C with 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    rank, world = place()
    console.quiet = rank > 0  # the first process speaks; of the others only errors are heard
    try:
        if world > 1 and (named := sys.argv[1:2]) and named[0] not in SEVERAL:
            raise ConfigError(
                f"'repro-rl {named[0]}' runs in one process, but {world} were started; "
                f"{', '.join(SEVERAL)} run in several."
            )
        app()
    except ReproError as error:
        if rank and isinstance(error, TrainingStopped):
            sys.exit(2)  # all processes stop then, and the first one says why
        if rank:
            error_console.print(f"process {rank}:", highlight=False)
        error_console.print(f"[bold red]{type(error).__name__}[/]", highlight=False)
        error_console.print(str(error), highlight=False, markup=False)
        if os.environ.get("REPRO_RL_TRACEBACK"):
            raise
        sys.exit(2)
    except KeyboardInterrupt:
        if not rank:
            error_console.print("Interrupted. Repeat the command to continue from the last checkpoint.")
        sys.exit(130)
    finally:
        console.show_cursor(True)
