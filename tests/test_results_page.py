"""The pages of results hold what their commands print; docs/results.md can be read in three minutes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "results.md").read_text()


def test_the_claims_are_what_the_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "data" / "claims.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = re.search(r"<!-- claims: .*? -->\n(.*?)\n<!-- end of claims -->", PAGE, re.DOTALL)
    assert shown
    assert shown[1] == done.stdout.strip()
    assert {"ahead", "level", "behind"} <= set(re.findall(r"\| (\w+) \|", shown[1])), "wins and losses"


def test_tables_that_name_their_command_are_what_it_prints() -> None:
    found = 0
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        marked = re.findall(r"<!-- table: python (.*?) -->\n(.*?)\n<!-- end of table -->", text, re.DOTALL)
        assert len(marked) == text.count("<!-- table:"), page.name
        for command, shown in marked:
            done = subprocess.run(
                [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
            )
            assert shown == done.stdout.strip(), f"{page.name}: {command}"
            found += 1
    assert found


def test_it_can_be_read_in_three_minutes() -> None:
    prose = [line for line in PAGE.splitlines() if not line.startswith(("|", "<!--"))]
    assert len(" ".join(prose).split()) < 720  # 240 words a minute


def test_the_claims_have_a_study() -> None:
    """Every number of the first table is in a row of the second, which names panel, revision, command."""
    claims = {int(number) for number in re.findall(r"^\| (\d+) \| .* : ", PAGE, re.MULTILINE)}
    studies: set[int] = set()
    for spans in re.findall(r"^\| ([\d–, ]+) \| [^|]* \| [^|]* \| [^|]+ \|$", PAGE, re.MULTILINE):
        for span in spans.split(","):
            first, _, last = span.strip().partition("–")
            studies.update(range(int(first), int(last or first) + 1))
    assert studies == claims
    assert claims


def test_the_figures_beside_the_credit_rules_are_those_of_the_studies() -> None:
    """Columns of docs/credit.md: mean success; in ALFWorld where a rule has ten seeds."""
    page = (ROOT / "docs" / "credit.md").read_text()
    assert "| Sokoban | its learning rate | ALFWorld | WebShop |" in page
    rows = re.findall(
        r"^\| \[`\w+`\]\([^)]*\) \| `([\w-]+)` \|.* \| (\S+) \| \S+ \| *(\S*) *\| (\S+) \|$",
        page,
        re.MULTILINE,
    )
    assert len(rows) == 15
    seeds = {"sokoban_seed": 10, "alfworld_seed": 10, "webshop_all_seed": 2}
    success = [pooled_success(name) for name in seeds]
    for method, *figures in rows:
        for figure, arms, least in zip(figures, success, seeds.values(), strict=True):
            values = arms[method]
            mean = f"{sum(values) / len(values):.3f}".removeprefix("0")
            assert figure == (mean if len(values) == least else ""), method


def pooled_success(study: str) -> dict[str, list[float]]:
    """{arm: success of each seed} over all parts of a study of the credit rules."""
    success: dict[str, list[float]] = {}
    for file in sorted((ROOT / "docs" / "data").glob(f"zoo_{study}*.json")):
        for arm in json.loads(file.read_text())["evaluations"][0]["arms"]:
            success.setdefault(arm["name"], []).extend(arm["success"]["by_seed"].values())
    return success
