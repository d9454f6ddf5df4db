"""The example module of docs/extending.md, which tests of other pages use too."""

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
EXTENDING = ROOT / "docs" / "extending.md"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def registries() -> list[Registry[Any]]:
    """Those that the page adds to."""
    from repro_rl.config import METHODS
    from repro_rl.credit import CREDIT, SOURCES
    from repro_rl.demos import ANNOTATORS
    from repro_rl.envs.base import ENVS
    from repro_rl.losses.named import LOSS_NAMES

    return [ENVS, CREDIT, SOURCES, LOSS_NAMES, ANNOTATORS, METHODS]


@pytest.fixture(scope="module")
def my_rl() -> Iterator[ModuleType]:
    """The page's Python blocks as the module ``my_rl``; what they register is taken back at the end."""
    module = ModuleType("my_rl")
    with ExitStack() as stack:
        for registry in registries():
            stack.enter_context(registry.isolated())
        sys.modules["my_rl"] = module
        stack.callback(sys.modules.pop, "my_rl")
        for number, code in enumerate(blocks(EXTENDING, "python"), 1):
            exec(compile(code, f"{EXTENDING.name}, Python block {number}", "exec"), module.__dict__)
        yield module


def page_settings(comment: str) -> dict[str, Any]:
    """The YAML file of that name on the page."""
    return next(
        yaml.safe_load(text) for text in blocks(EXTENDING, "yaml") if text.startswith(f"# {comment}\n")
    )
