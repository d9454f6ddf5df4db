"""The entry point, and how errors reach a person."""

from __future__ import annotations

import os
import sys

from repro_rl.cli import (  # noqa: F401  each adds its commands to app
    compare,
    data,
    demo,
    doctor,
    evaluate,
    pilot,
    plan,
    play,
    progress,
    report,
    stages,
    verl,
    view,
)
from repro_rl.cli.app import app
from repro_rl.cli.show import console, error_console
from repro_rl.cli.terminal import clean_the_rest
from repro_rl.dist.launcher import rank_and_world
from repro_rl.errors import ConfigError, ReproError, TrainingStopped, missing_extra

PARALLEL_COMMANDS = ("train", "warmup", "eval")  # those that share their work between processes


def main() -> None:
    """Entry point. Errors of the package end with status 2 and no traceback; Ctrl-C with 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    rank, world = rank_and_world()
    clean_the_rest()
    console.quiet = rank > 0  # of the other processes only errors are printed
    try:
        command = sys.argv[1] if len(sys.argv) > 1 else None
        if world > 1 and command is not None and command not in PARALLEL_COMMANDS:
            raise ConfigError(
                f"'repro-rl {command}' runs in one process, but {world} were started; "
                f"{', '.join(PARALLEL_COMMANDS)} run in several."
            )
        app()
    except (ReproError, ModuleNotFoundError) as raised:
        error = missing_extra(raised) if isinstance(raised, ModuleNotFoundError) else raised
        if not isinstance(error, ReproError):
            raise
        if rank and isinstance(error, TrainingStopped):
            sys.exit(2)  # all processes stop then, and the first one prints the reason
        if rank:
            error_console.print(f"process {rank}:", highlight=False)
        error_console.print(type(error).__name__, style="bold red")
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
