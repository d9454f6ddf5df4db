"""``repro-rl list`` and ``repro-rl settings``: what there is to choose from, read from the package itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib.resources.abc import Traversable
from typing import Annotated, Any

import typer

from repro_rl.cli import complete
from repro_rl.cli.about import first_comment, first_sentence
from repro_rl.cli.app import app
from repro_rl.cli.options import take_plugins
from repro_rl.cli.show import new_table, say, show_table
from repro_rl.errors import ConfigError

Row = tuple[str, ...]


class Kind(StrEnum):
    """What ``list`` can list."""

    recipes = "recipes"
    studies = "studies"
    methods = "methods"
    environments = "environments"
    credit_rules = "credit-rules"
    losses = "losses"
    progress_sources = "progress-sources"
    annotators = "annotators"


@app.command("list")
def list_command(
    kind: Annotated[Kind, typer.Argument(help="what to list", metavar="KIND")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="plugins=[MODULE]", help="modules of yours that register names"),
    ] = None,
) -> None:
    """List recipes, studies, methods, environments, credit-rules, losses, progress-sources or annotators."""
    others = take_plugins(words or [])
    if others:
        raise ConfigError(f"Only plugins=[MODULE] may follow; got {' '.join(others)}.")
    head, rows = LISTS[kind]()
    show_table(new_table("", head, rows, left=len(head)))
    say(USES[kind])


def _recipes() -> tuple[Row, list[Row]]:
    from repro_rl.config.recipe_files import SHIPPED, recipe_names

    return ("recipe", "what it trains"), _commented(SHIPPED, recipe_names())


def _studies() -> tuple[Row, list[Row]]:
    from repro_rl.study.definition import SHIPPED, studies

    return ("study", "what it compares"), _commented(SHIPPED, studies())


def _methods() -> tuple[Row, list[Row]]:
    from repro_rl.config import METHODS, MethodSection
    from repro_rl.config.methods import about_methods

    about, default = about_methods(), MethodSection.model_fields["credit"].default
    rows: list[Row] = [
        (name, str(METHODS.get(name).get("credit", default)), about.get(name, "")) for name in METHODS
    ]
    return ("method", "credit rule", "what it does"), rows


def _environments() -> tuple[Row, list[Row]]:
    from repro_rl.envs.base import ENVS

    return ("environment", "what it is"), _documented(ENVS)


def _credit_rules() -> tuple[Row, list[Row]]:
    from repro_rl.credit import CREDIT
    from repro_rl.credit.rules import own_settings

    rules: list[Row] = [(name, first_sentence(CREDIT.get(name).function)) for name in CREDIT]
    return _with_settings(("credit rule", "advantage of a step"), rules, own_settings)


def _losses() -> tuple[Row, list[Row]]:
    from repro_rl.losses.named import LOSS_NAMES

    rows: list[Row] = []
    for name in LOSS_NAMES:
        loss = LOSS_NAMES.get(name)
        rows.append((name, loss.about or first_sentence(loss.function), _written(loss.settings)))
    return ("loss", "what it does", "settings"), rows


def _progress_sources() -> tuple[Row, list[Row]]:
    from repro_rl.credit import SOURCES
    from repro_rl.credit.sources import own_settings

    return _with_settings(("source of progress", "what it is"), _documented(SOURCES), own_settings)


def _with_settings(
    head: Row, rows: list[Row], settings: Callable[[str], Mapping[str, Any]]
) -> tuple[Row, list[Row]]:
    """A further column with what ``settings`` says of each name, where one has any."""
    found = [_written(settings(row[0])) for row in rows]
    if not any(found):
        return head, rows
    return (*head, "settings"), [(*row, text) for row, text in zip(rows, found, strict=True)]


def _written(settings: Mapping[str, Any]) -> str:
    """Settings with their defaults."""
    return " ".join(f"{name}={'none' if value is None else value}" for name, value in settings.items())


def _annotators() -> tuple[Row, list[Row]]:
    from repro_rl.demos import ANNOTATORS

    return ("annotator", "how it labels demonstrations"), _documented(ANNOTATORS)


LISTS: dict[Kind, Callable[[], tuple[Row, list[Row]]]] = {
    Kind.recipes: _recipes,
    Kind.studies: _studies,
    Kind.methods: _methods,
    Kind.environments: _environments,
    Kind.credit_rules: _credit_rules,
    Kind.losses: _losses,
    Kind.progress_sources: _progress_sources,
    Kind.annotators: _annotators,
}
USES = {
    Kind.recipes: "Use one with -c NAME; 'repro-rl settings NAME' says what it sets, 'repro-rl plan NAME' "
    "what it needs.",
    Kind.studies: "Run one with 'repro-rl compare NAME'; 'repro-rl settings NAME' says what is in it.",
    Kind.methods: "Use one with --method NAME; docs/methods.md explains them.",
    Kind.environments: "Use one with env.name=NAME, or 'repro-rl play NAME'; 'repro-rl settings NAME' lists "
    "its settings.",
    Kind.credit_rules: "Use one with method.credit=NAME; docs/credit.md explains them.",
    Kind.losses: "Use one with train.loss.name=NAME; docs/losses.md explains them.",
    Kind.progress_sources: "Use one with method.shaping=NAME; docs/progress-sources.md explains them.",
    Kind.annotators: "Use one with demos.annotator=NAME; docs/warmup.md explains them.",
}


def _commented(folder: Traversable, names: Sequence[str]) -> list[Row]:
    """Names of YAML files with the first sentence of the comment at their head."""
    return [(name, first_comment(folder.joinpath(f"{name}.yaml").read_text("utf-8"))) for name in names]


def _documented(registry: Any) -> list[Row]:
    """Names of a registry with the first sentence of what is registered."""
    return [(name, first_sentence(registry.get(name))) for name in registry]


@app.command("settings")
def settings_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION|plugins=[MODULE]",
            help="a section such as train or method.hcapo, a setting such as train.lr, a settings file, or "
            "the name of a recipe, study, environment, method, credit rule, loss, source of progress or "
            "annotator  \\[default: all]",
            autocompletion=complete.sections,
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the page docs/settings.md")] = False,
) -> None:
    """List settings with type, default and description: all, of one section, or of what has a name."""
    from repro_rl.cli.settings_of import further_names, of_file
    from repro_rl.config import named_parts, reference
    from repro_rl.config.recipe_files import is_yaml_file

    names = take_plugins(words or [])
    if markdown:
        sys.stdout.write(reference.as_markdown())
        return
    further = further_names() if names else {}
    found = [
        item
        for name in names
        for item in ([of_file(name)] if is_yaml_file(name) else named_parts.find_settings(name, further))
    ] or reference.sections()
    for section in found:
        title = f"{section.name or 'top level'}: {section.about}"
        if not section.settings:  # a table without rows would wrap the title to its heads
            say(title)
            continue
        rows = [(row.name, row.type, row.default or "required", row.description) for row in section.settings]
        show_table(new_table(title, ("setting", "type", section.column, "description"), rows, left=4))
