"""The example module of the pages that docs/extending.md lists, which tests of other pages use too."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from repro_rl.registry import Registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXTENDING = DOCS / "extending.md"
NEW_ENVIRONMENT = DOCS / "new-environment.md"
LEVELS = DOCS / "sokoban-levels.md"
# Pages whose Python blocks are one module, in this order.
MODULE_PAGES = (
    NEW_ENVIRONMENT,
    DOCS / "environment-contract.md",
    DOCS / "new-credit-rule.md",
    DOCS / "new-loss.md",
    DOCS / "new-progress-source.md",
    DOCS / "new-annotator.md",
    DOCS / "new-method.md",
)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def run_blocks(page: Path, names: dict[str, Any]) -> None:
    """Run the Python blocks of a page in one namespace."""
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page.name}, Python block {number}", "exec"), names)


def registries() -> list[Registry[Any]]:
    """Those that the pages add to."""
    from repro_rl.config import METHODS
    from repro_rl.credit import CREDIT, SOURCES
    from repro_rl.demos import ANNOTATORS
    from repro_rl.envs.base import ENVS
    from repro_rl.losses.named import LOSS_NAMES

    return [ENVS, CREDIT, SOURCES, LOSS_NAMES, ANNOTATORS, METHODS]


@pytest.fixture(scope="module")
def my_rl() -> Iterator[ModuleType]:
    """The pages' Python blocks as the module ``my_rl``; what they register is taken back at the end."""
    module = ModuleType("my_rl")
    with ExitStack() as stack:
        for registry in registries():
            stack.enter_context(registry.isolated())
        sys.modules["my_rl"] = module
        stack.callback(sys.modules.pop, "my_rl")
        for page in MODULE_PAGES:
            run_blocks(page, module.__dict__)
        yield module


def page_settings(comment: str) -> dict[str, Any]:
    """The YAML file of that name."""
    return next(
        yaml.safe_load(text)
        for page in (NEW_ENVIRONMENT, LEVELS)
        for text in blocks(page, "yaml")
        if text.startswith(f"# {comment}\n")
    )
