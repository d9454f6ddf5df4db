"""``repro-rl panel``: the fixed tasks that models are evaluated on, shown and written as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.options import env_settings, take_plugins
from repro_rl.cli.show import new_table, say, show_table
from repro_rl.errors import ConfigError

if TYPE_CHECKING:
    from repro_rl.envs.base import TextEnv
    from repro_rl.envs.panel import TaskPanel

panel = typer.Typer(no_args_is_help=True, help="Fixed panels of tasks: show them, write them as files.")
app.add_typer(panel, name="panel")

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="ENV|SPLIT|KEY=VALUE",
        help="an environment, some of its splits, its settings; plugins=[MODULE]",
        autocompletion=complete.environments,
    ),
]
Tasks = Annotated[
    int | None, typer.Option("--tasks", "-n", min=1, help="only the first tasks  \\[default: all]")
]


@panel.command("show")
def show(words: Words, tasks: Tasks = None) -> None:
    """Show panels: size, task types, and the digest over ids and contents, by which everybody can compare.

    Without a split: test and validation, or the first that has tasks.
    """
    from repro_rl.envs.base import description_of
    from repro_rl.envs.panel_file import describe_panel

    env, splits, _ = _open(words)
    found = [describe_panel(env, _head(env, split, tasks)) for split in splits]
    rows = [
        (about["panel_env"], about["split"], str(about["size"]), _types(about["types"])) for about in found
    ]
    show_table(new_table(f"panels of {env.name}", ("panel", "split", "tasks", "types"), rows, left=4))
    for about in found:
        say(f"{about['split']}: sha256 {about['digest']}")
    if data := description_of(env):
        say(f"data: {data}")


@panel.command("export")
def export(
    words: Words,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="a .json or .jsonl file to write", show_default=False)
    ],
    tasks: Tasks = None,
) -> None:
    """Write one panel as a file of task ids, contents and digest, for eval.panel=FILE and other programs."""
    from repro_rl.envs.panel_file import write_panel

    if out.suffix not in (".json", ".jsonl"):
        raise ConfigError(f"--out {out}: give a name that ends in .json or .jsonl.")
    env, splits, settings = _open(words)
    if len([word for word in words if "=" not in word]) != 2:
        raise ConfigError(f"A file holds one panel: name one split, such as {env.name} {splits[0]}.")
    chosen = _head(env, splits[0], tasks)
    write_panel(out, env, chosen, {name: _portable(value) for name, value in settings.items()})
    say(f"{chosen.label()} is in {out}")
    say(f"sha256 {chosen.digest}")
    say(f"Evaluate on it: repro-rl eval MODEL eval.panel={out}")


def _open(words: Sequence[str]) -> tuple[TextEnv, list[str], dict[str, object]]:
    """The environment, its splits (see ``show``; without any) and its settings."""
    from repro_rl.envs.base import has_tasks, make
    from repro_rl.envs.checker import first_split

    words = take_plugins(words)
    names = [word for word in words if "=" not in word]
    if not names:
        raise ConfigError("Name an environment first, such as sokoban.")
    settings = env_settings(names[0], [word for word in words if "=" in word])
    env = make(names[0], **settings)
    usual = [split for split in ("test", "validation") if not names[1:] and has_tasks(env, split)]
    return env, names[1:] or usual or [first_split(env)], settings


def _types(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "–"


def _portable(value: object) -> object:
    """A setting as others may read it: of a path here only its name."""
    is_path = isinstance(value, str) and Path(value).exists()
    return Path(str(value)).name if is_path else value


def _head(env: TextEnv, split: str, tasks: int | None) -> TaskPanel:
    from repro_rl.envs.base import panel_of

    whole = panel_of(env, split)
    return whole if tasks is None else whole.head(tasks)
