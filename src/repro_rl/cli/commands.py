"""All commands: importing this module adds them to ``app``."""

from repro_rl.cli import (  # noqa: F401
    compare,
    data,
    demo,
    doctor,
    evaluate,
    new,
    panel,
    pilot,
    plan,
    play,
    progress,
    reference,
    report,
    stages,
    verl,
    view,
)
from repro_rl.cli.app import app, plain_help

plain_help(app)

__all__ = ["app"]
