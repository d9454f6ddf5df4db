"""The command line. Thin: every command is a few calls into the package."""

from repro_rl.cli.entry import main

__all__ = ["main"]
