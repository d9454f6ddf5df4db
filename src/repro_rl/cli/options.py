"""Parameters that several commands share, and the settings read from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.show import allowed
from repro_rl.errors import ConfigError

if TYPE_CHECKING:
    from repro_rl.config import Override, RunConfig
    from repro_rl.config.problems import Problem

Source = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        help="a YAML file, or the name of a built-in recipe",
        show_default="sokoban-tiny",
        autocompletion=complete.recipes,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="settings, e.g. seed=1 (repro-rl settings lists them)",
        autocompletion=complete.overrides,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        "-m",
        help="repro, grpo, gigpo, ... (repro-rl list methods)",
        autocompletion=complete.methods,
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        help="the model that training starts from: runs/warmup/model, a model folder, a GGUF file or a hub "
        "name. It decides; policy.model only says what a warmup starts from",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="folder to write to (continued if it exists)")]


def chosen(method: str | None, init: str | None) -> list[Override]:
    """The overrides that --method and --init stand for, those that are given."""
    given = {"method.name": method, "train.init": init}
    return [(name, value) for name, value in given.items() if value]


def read_config(source: str | None, overrides: Sequence[str] | None, *defaults: Override) -> RunConfig:
    """The settings of a command, whose environment and annotator exist.

    ``defaults`` are overrides that the command adds. Those of the user win.
    """
    from repro_rl.config import load_config
    from repro_rl.run.preflight import unknown_annotator

    return load_config(source, overrides, defaults, check=unknown_annotator)


def read_run_config(
    run: str | Path, source: str | None, overrides: Sequence[str] | None, *defaults: Override
) -> RunConfig:
    """The settings of ``source``, else of the run in a folder, else of the default recipe.

    A person is asked about settings of a run that was not made here; see ``load_run_config``.
    """
    from repro_rl.config import load_run_config
    from repro_rl.config.environments import env_problems
    from repro_rl.files.names import CONFIG_FILE

    if source is not None or not (Path(run) / CONFIG_FILE).exists():
        return read_config(source, overrides, *defaults)

    def check(config: RunConfig) -> list[Problem]:
        return env_problems(config.env)

    return load_run_config(run, overrides, defaults, allow=allowed, check=check)


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of recipes or files, and settings SECTION.KEY=VALUE. A YAML file may have = in its name."""
    from repro_rl.config.recipe_files import is_yaml_file

    settings = [word for word in words if "=" in word and not (is_yaml_file(word) and Path(word).is_file())]
    return [word for word in words if word not in settings], settings


def env_settings(name: str | None, overrides: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as keyword arguments of ``repro_rl.make`` for the environment ``name``.

    Values are as in ``env.settings.KEY=VALUE``. Raises ConfigError.
    """
    from repro_rl.config import env_values

    return env_values(name, overrides)


def take_plugins(words: Sequence[str]) -> list[str]:
    """Import the modules of ``plugins=[MODULE, ...]`` among ``words``; returns the other words.

    For commands whose KEY=VALUE are settings of one environment. Raises ConfigError.
    """
    from repro_rl.config import import_plugins
    from repro_rl.config.values import parse_text

    others: list[str] = []
    for word in words:
        key, sign, text = word.partition("=")
        if sign and key.strip() == "plugins":
            modules = parse_text(text.strip(), list[str])
            import_plugins([modules] if isinstance(modules, str) else modules)
        else:
            others.append(word)
    return others


def take_folders(words: Sequence[Path]) -> list[Path]:
    """The folders among ``words``, after the modules of ``plugins=[MODULE, ...]`` are imported.

    For commands that read folders and take no settings. Raises ConfigError, also where no folder is left.
    """
    folders = [Path(word) for word in take_plugins([str(word) for word in words])]
    if not folders:
        raise ConfigError("Name a folder, such as runs/repro.")
    return folders


def parse_seeds(text: str) -> list[int]:
    """Seeds of "0,1,5" and "0-4", or both mixed. Raises ConfigError."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f"--seeds {text!r}: give numbers such as 0,1,2 or 0-4.")
        if int(last or first) < int(first):
            raise ConfigError(
                f"--seeds {text!r}: {part.strip()} has no seeds; a range goes from the smaller one to the "
                f"larger one, {last}-{first}."
            )
        seeds += range(int(first), int(last or first) + 1)
    return seeds
