"""The pages as text: lines of at most 100 columns, short sentences where it was promised, marked commands."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(DOCS.glob("*.md"))
# Pages whose sentences have been shortened; a page may be added, never taken away.
SHORT = ("README", "CHANGELOG", "CONTRIBUTING", "index", "concepts", "own-model", "neighbours", "results")
LONGEST = 25  # words in a sentence
# Pages whose every command block is run by a test or marked.
MARKED = ("README", "CONTRIBUTING", "index", "own-model")


@pytest.fixture(scope="module")
def wrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wrap", DOCS / "data" / "wrap.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in ("settings.md", "capabilities.md")],  # written by code
    ids=lambda page: page.stem,
)
def test_lines_are_at_most_100_columns(page: Path, wrap: ModuleType) -> None:
    """Prose alone: tables, code, headings and addresses may be longer. docs/data/wrap.py wraps a page."""
    assert wrap.long_lines(page.read_text()) == []


def test_wrapping_keeps_every_word_and_is_done_once(wrap: ModuleType) -> None:
    text = (
        "# A heading " + "word " * 30 + "\n\n" + "word " * 40 + "- 3 # 1. end\n"
        "- item " + "word " * 30 + "\n  more\n\n```\n" + "code " * 40 + "\n```\n| " + "cell " * 40 + "|\n"
    )
    once = wrap.wrapped(text)
    assert once.split() == text.split()
    assert wrap.wrapped(once) == once
    assert wrap.long_lines(text) != []
    assert wrap.long_lines(once) == []
    assert [line for line in once.splitlines() if re.match(r"(- 3|# 1|1\. end)", line)] == []


def sentences(text: str) -> list[str]:
    """The sentences of the prose, without code, tables, links' targets and formulas."""
    text = re.sub(r"^```.*?^```$|\$\$.*?\$\$|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^[|#].*$", "\n", text, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)
    return [
        " ".join(sentence.split())
        for block in blocks
        for sentence in re.split(r"(?<=[.?!:;])[)*]*\s", block)
        if sentence.strip()
    ]


@pytest.mark.parametrize("name", SHORT)
def test_sentences_are_short(name: str) -> None:
    (page,) = [page for page in PAGES if page.stem == name]
    too_long = [s for s in sentences(page.read_text()) if len(re.findall(r"\w[\w'’.-]*", s)) > LONGEST]
    assert too_long == []


@pytest.mark.parametrize("name", MARKED)
def test_commands_are_run_or_marked(name: str) -> None:
    """A block of commands follows ``<!-- not run: why -->``; README's two commands are run by the CI."""
    (page,) = [page for page in PAGES if page.stem == name]
    lines = page.read_text().splitlines()
    run_by_ci = {"make demo     # set up", "make test     # set up"}
    fenced = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
            commands = (
                fenced and line == "```" and re.match(r"(repro-rl|make|pip|python) ", lines[number + 1])
            )
            if commands and not any(lines[number + 1].startswith(known) for known in run_by_ci):
                assert "<!-- not run: " in lines[number - 1], f"line {number + 2}: {lines[number + 1]}"
