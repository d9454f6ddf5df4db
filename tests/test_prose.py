"""Pages and docstrings as text: short sentences. Pages: short lines, a question first, marked commands."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(DOCS.glob("*.md"))
CODE_FOLDERS = ("src", "benchmarks", "examples", "docs/data")
GENERATED = ("settings", "capabilities")  # written by code, which is where their sentences are mended
LONGEST = 25  # words in a sentence
# How a line of a command block begins.
COMMAND = re.compile(r"(\w+=\S+ )*(repro-rl|make|pip|python3?|torchrun|export|vf-eval) |\w+=\$\(")


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
    [page for page in PAGES if page.stem not in GENERATED],
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
    """The sentences of the prose, without code blocks, formulas, comments, tables and headings.

    Code within a sentence is one word, whatever it holds; of a link only its text counts. A sentence ends
    at . ! ? : or ; where a capital, code, a link, bold text or a parenthesis follows: a semicolon between
    two clauses makes no short sentence.
    """
    text = re.sub(r"^```.*?^```$|^\$\$.*?\$\$$|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"``[^`]*``|`[^`]*`", "CODE", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"^\s*[|#].*$", "", text, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.)\s)", text)
    return [
        sentence
        for block in blocks
        for sentence in re.split(r"(?<=[.!?:;])\s+(?=[A-Z*\[(])", " ".join(block.split()))
        if sentence
    ]


def words(sentence: str) -> int:
    return sum(re.search(r"\w", word) is not None for word in sentence.split())


def test_what_counts_as_a_sentence() -> None:
    text = (
        "# A heading: not counted\n\nFirst `one piece. Of code` counts; the clause too. A [link](a.md)!\n"
        "- An item\n  of two lines: *Bold* is new\n- Next (v. 2.5)\n\n| a | table |\n\n"
        "```\ncode here. And here.\n```\n<!-- not run: why -->\nLast."
    )
    found = ["First CODE counts; the clause too.", "A [link]!", "- An item of two lines:", "*Bold* is new"]
    assert sentences(text) == [*found, "- Next (v. 2.5)", "Last."]
    assert [words(sentence) for sentence in found] == [6, 2, 5, 3]
    assert sentences("Of ``a [T]. And b`` and `c`.") == ["Of CODE and CODE."]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sentences_are_short(page: Path) -> None:
    found = sentences(page.read_text(encoding="utf-8"))
    assert [sentence for sentence in found if words(sentence) > LONGEST] == []


def docstrings(module: Path) -> list[str]:
    """Those of the module, and of its classes and functions, private and inner ones too."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = ast.walk(ast.parse(module.read_text(encoding="utf-8")))
    return [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_sentences_of_docstrings_are_short(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    found = [(path.name, found) for path in modules for text in docstrings(path) for found in sentences(text)]
    assert found
    assert [(name, sentence) for name, sentence in found if words(sentence) > LONGEST] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_is_left_to_fill_in(page: Path) -> None:
    """No word in capitals stands where a sentence should end, or where somebody meant to write more."""
    text = re.sub(r"^```.*?^```$", "`code`", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\b(?:TODO|TBD|FIXME|XXX)\b|\b[A-Z]{4,}\s*(?=\n\n|\Z)", text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_table_has_a_heading(page: Path) -> None:
    """A row that a blank line parts from its table is shown as text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    tables = re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE)
    assert [table for table in tables if not re.match(r"\|.*\n\|[-:| ]+\|$", table, re.MULTILINE)] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_begins_with_the_question_it_answers(page: Path) -> None:
    """In its title or its first paragraph."""
    title, opening = page.read_text(encoding="utf-8").split("\n\n", 2)[:2]
    assert "?" in title or "?" in opening


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_run_or_marked(page: Path) -> None:
    """A block of commands follows ``<!-- not run: why -->``; README's two commands are run by the CI."""
    lines = page.read_text().splitlines()
    run_by_ci = {"make demo     # set up", "make test     # set up"}
    fenced = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
            commands = fenced and line == "```" and COMMAND.match(lines[number + 1])
            if commands and not any(lines[number + 1].startswith(known) for known in run_by_ci):
                assert "<!-- not run: " in lines[number - 1], f"line {number + 2}: {lines[number + 1]}"
