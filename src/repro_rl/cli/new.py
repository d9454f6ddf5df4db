"""``repro-rl new``: a small package with a part of one's own to start from."""

from __future__ import annotations

import importlib.util
import keyword
import re
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli.app import app
from repro_rl.cli.options import take_plugins
from repro_rl.cli.show import say
from repro_rl.errors import ConfigError

if TYPE_CHECKING:
    from repro_rl.registry import Registry

TEMPLATES = Path(__file__).with_name("new_package")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")


class Part(StrEnum):
    """What can be begun."""

    env = "env"
    credit_rule = "credit-rule"
    loss = "loss"
    progress_source = "progress-source"
    annotator = "annotator"


@app.command()
def new(
    part: Annotated[
        Part,
        typer.Argument(
            help="env, credit-rule, loss, progress-source or annotator",
            metavar="|".join(Part),
        ),
    ],
    name: Annotated[str, typer.Argument(help="the name by which commands find it, such as my-maze")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="plugins=[MODULE]", help="modules of yours, whose names are taken"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder to write to  \\[default: ./NAME]")
    ] = None,
) -> None:
    """Write a small installable package: code, a test that passes, an entry point, settings of a run."""
    if others := take_plugins(words or []):
        raise ConfigError(f"Only plugins=[MODULE] may follow; got {' '.join(others)}.")
    folder = out or Path(name)
    for path in write_package(part, name, folder):
        say(str(path))
    say(f"Next, in this environment: cd {folder} && pip install -e '.[dev]' && python -m pytest")
    say(f"Then edit src/{names_of(name)['module']}/__init__.py; README.md says more.")
    if part is Part.annotator:
        say(f"To train from what it labels: repro-rl demo -c {name}.yaml -o runs/{name}")
        return
    recipe, arms = {
        Part.env: (f"{name}.yaml", "repro -m gigpo"),
        Part.progress_source: ("alfworld-tiny", f"gigpo -m linear-act -m oracle-act -m {name}"),
    }.get(part, ("alfworld-tiny", f"gigpo -m {name}"))
    say(f"To compare: repro-rl compare -c {recipe} -m {arms} --seeds 0-1 -o runs/{name}")
    if part is Part.credit_rule:
        say(
            "With tuned arms: repro-rl compare credit-zoo-alfworld -m gigpo -m g2po "
            f"-m {name} --seeds 30-31 -o runs/{name}-tuned"
        )


def names_of(name: str) -> dict[str, str]:
    """What ``name`` is called in the package's files. Raises ConfigError for a name that cannot be one."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"The name {name!r} must begin with a letter; then letters, digits, - and _.")
    module = name.replace("-", "_").lower()
    if keyword.iskeyword(module):
        raise ConfigError(f"{name!r} is a word of Python; choose another name.")
    cls = "".join(word.capitalize() for word in module.split("_"))
    return {
        "name": name,
        "package": name.lower(),
        "module": module,
        "cls": cls,
        "function": f"{module}_advantages",
    }


def write_package(part: Part, name: str, folder: Path) -> list[Path]:
    """Write the package into ``folder`` and return its files.

    Raises ConfigError where the name is taken, by a registered one or a module, and for a folder that holds
    something.
    """
    from repro_rl.config import METHODS
    from repro_rl.credit import CREDIT, SOURCES
    from repro_rl.demos import ANNOTATORS
    from repro_rl.envs.base import ENVS
    from repro_rl.files import write_text
    from repro_rl.losses.named import LOSS_NAMES, RESERVED

    words = names_of(name)
    registries: dict[Part, tuple[Registry[Any], tuple[str, ...]]] = {  # and further names that mean something
        Part.env: (ENVS, ()),
        Part.credit_rule: (CREDIT, ()),
        Part.loss: (LOSS_NAMES, RESERVED),
        Part.progress_source: (SOURCES, ("none", "outcome")),
        Part.annotator: (ANNOTATORS, ()),
    }
    registry, taken = registries[part]
    if name in (*registry.names(), *taken):
        raise ConfigError(f"The {registry.kind} {name!r} exists already; choose another name.")
    if part not in (Part.env, Part.annotator) and name in METHODS.names():
        raise ConfigError(f"The method {name!r} exists already; choose another name: the package makes one.")
    if importlib.util.find_spec(words["module"]) is not None:
        raise ConfigError(f"A module {words['module']!r} is installed already; choose another name.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; choose another folder with --out.")
    targets = {
        "pyproject.toml": folder / "pyproject.toml",
        "README.md": folder / "README.md",
        "settings.yaml": folder / f"{name}.yaml",
        "module.py": folder / "src" / words["module"] / "__init__.py",
        "test_module.py": folder / "tests" / f"test_{words['module']}.py",
    }
    for source, target in targets.items():
        template = Template((TEMPLATES / part.value / f"{source}.tmpl").read_text(encoding="utf-8"))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, template.substitute(words))
    return list(targets.values())
