"""``python -m repro_rl.integrations.openenv serve|figures ENV [setting=value ...]``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from repro_rl.config import env_values
from repro_rl.errors import ConfigError, ReproError, missing_extra
from repro_rl.integrations.openenv.figures import measure


def _setting(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form setting=value")
    return text


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m repro_rl.integrations.openenv", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve an environment (extra: openenv)")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="(8000)")
    serve.add_argument("--sessions", type=int, default=256, help="at the same time (256)")
    figures = commands.add_parser("figures", help="measure oracle_tolerance and floor_margin of openenv.yaml")
    figures.add_argument("--tasks", type=int, default=50, help="the first so many of the split (50)")
    for command, split in ((serve, "train"), (figures, "test")):
        command.add_argument("env", help="sokoban, alfworld, webshop or one of your own")
        command.add_argument("settings", nargs="*", type=_setting, help="of the environment: name=value")
        command.add_argument("--split", default=split, help=f"({split})")
    return parser.parse_args(argv)


def _serve(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    try:
        import uvicorn

        from repro_rl.integrations.openenv.server import create_app
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    if arguments.sessions < 1:
        raise ConfigError(f"--sessions is {arguments.sessions}; give 1 or more.")
    app = create_app(arguments.env, settings, split=arguments.split, sessions=arguments.sessions)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")


def _figures(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    found = measure(arguments.env, settings, split=arguments.split, tasks=arguments.tasks)
    print(f"# {found.panel}: expert {found.oracle:.4f}, random {found.random:.4f}, idle {found.idle:.4f}")
    print(f"oracle_tolerance: {found.oracle_tolerance}\nfloor_margin: {found.floor_margin}")


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit status: 0, or 1 after an error of ours, which is printed."""
    arguments = _arguments(argv)
    try:
        settings = env_values(arguments.env, arguments.settings)
        (_serve if arguments.command == "serve" else _figures)(arguments, settings)
    except ReproError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
