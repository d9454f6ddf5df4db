"""The documentation site: its navigation, its references from the code, and a strict build."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    """A script of docs/data as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "data" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_has_its_place_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"^ +- .*?([\w-]+\.md)$", navigation, re.MULTILINE)
    assert len(named) == len(set(named))
    assert {page.name for page in DOCS.glob("*.md")} == set(named)


def test_every_command_is_in_the_reference() -> None:
    text = load("reference").cli()
    commands = set(re.findall(r"^#+ repro-rl (.+)$", text, re.MULTILINE))
    assert {"demo", "train", "eval", "data webshop import"} <= commands
    assert "`--with`" in text.partition("## repro-rl demo\n")[2].partition("\n## ")[0]


def test_lists_and_tables_are_set_apart_for_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "data")
    site = load("site")
    page = "Words:\n- one\n  more\n- two\n  - inner\n```\n- code\n```\nA table:\n| a |\n|---|"
    assert site.on_page_markdown(page).split("\n") == [
        *("Words:", "", "- one", "    more", "- two", "    - inner", "```", "- code", "```"),
        *("A table:", "", "| a |", "|---|"),
    ]


def test_figures_in_tables_are_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "data")
    text = "| .4 : .3 | +.1 [−.1, +.2] | 2 ± .5 | `x=[1, 2]` | 9 of 10 |\n\nA [1, 2]."
    row = "| .4~:~.3 | +.1 [−.1,~+.2] | 2~±~.5 | `x=[1, 2]` | 9 of 10 |"
    assert load("site").on_page_markdown(text) == row.replace("~", "\xa0") + "\n\nA [1, 2]."


def test_a_file_outside_of_docs_is_named_without_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "data")
    inside = "[panels](panels.md#top) and [own](own-model.md)"
    text = f"[examples/a.py](../examples/a.py), [`b.py`](../src/b.py), {inside}."
    expected = f"`examples/a.py`, `b.py`, {inside}."
    assert load("site").on_page_markdown(text) == expected


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the site's tools are not installed: pip install '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="the site's tools are not installed: pip install '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    assert (tmp_path / "search" / "search_index.json").exists(), "the search needs no server of others"
    assert (tmp_path / "search" / "search_index.js").exists(), "nor any server"
    assert (tmp_path / "data" / "iframe-worker.js").exists()
    page = (tmp_path / "settings.html").read_text()
    assert "method.judge_temperature" in page
    assert not re.search(r'<(?:script|link)[^>]+(?:src|href)="https?://', page), (
        "nothing is loaded from elsewhere"
    )
