"""All pages: their links lead somewhere; methods, decisions and files that they name are there."""

from __future__ import annotations

import re

import pytest

from repro_rl.config import METHODS
from support.extending_page import ROOT

SOURCE = ROOT / "src" / "repro_rl"
METHODS_PAGE, DECISIONS = (ROOT / "docs" / f"{name}.md" for name in ("methods", "decisions"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHIPPED_METHODS = METHODS.names()


def anchor(heading: str) -> str:
    """The link target that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, part = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists():
            dead.append(link)
        elif part and target.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            if part not in map(anchor, headings):
                dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", SHIPPED_METHODS)
def test_every_method_is_described(name):
    assert f"`{name}`" in METHODS_PAGE.read_text()


def test_every_decision_that_is_named_exists():
    decisions = set(re.findall(r"^### (D\d+)$", DECISIONS.read_text(), re.MULTILINE))
    sources = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *PAGES]
    named = {n for file in sources for n in re.findall(r"\b[Dd]ecision\s+(?:# )?(D\d+)\b", file.read_text())}
    assert sorted(named - decisions) == []


def test_the_decisions_name_files_that_exist():
    files = re.findall(
        r"`([\w/.-]+\.(?:py|yaml)|[\w/-]+/)`", re.sub(r"`config\.yaml`", "", DECISIONS.read_text())
    )
    assert [name for name in files if name != "src/repro_rl/" and not (SOURCE / name).exists()] == []


def test_pages_that_the_code_names_exist():
    """In messages, descriptions and docstrings: ``docs/NAME.md``."""
    files = [path for path in SOURCE.rglob("*") if path.suffix in (".py", ".yaml", ".tmpl")]
    named = {name for file in files for name in re.findall(r"docs/([\w-]+)\.md", file.read_text())}
    assert named
    assert sorted(name for name in named if not (ROOT / "docs" / f"{name}.md").exists()) == []


def test_no_page_or_code_points_at_unpublished_pages():
    phrase = re.compile(r"[Oo]ur (?:decision|convention)|\bMETHOD(?:'s|:|,| \()|\bMICRO\b")
    files = [*SOURCE.rglob("*.py"), *PAGES]
    assert [str(file.relative_to(ROOT)) for file in files if phrase.search(file.read_text())] == []
