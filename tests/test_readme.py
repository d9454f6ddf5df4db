"""README.md: its length, its library example, its figures and its sample output."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import repro_rl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DATA = ROOT / "docs" / "data"
TITLE = "RePro: Retrospective Progress-Aware Self-Refinement for LLM Agent Training"


def test_it_is_short() -> None:
    assert len(README.split()) < 900


def test_the_ten_lines_run() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith("#")]) == 10
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    credit, info = names["credit"], names["info"]
    assert isinstance(credit, list)
    assert isinstance(info, dict)
    assert info["won"]
    assert [round(value, 1) for value in credit[0]] == [0.4] + [0.1] * (len(credit[0]) - 1)


@pytest.mark.parametrize(
    ("row", "studies"),
    [
        ("ALFWorld", ["alfworld_study", "alfworld_seeds_5_9"]),
        ("start at 15 %", ["sokoban_study"]),
        ("after the action", ["sokoban_report_after"]),
        ("start at 5 %", ["sokoban_rare"]),
        ("WebShop", ["webshop_study"]),
    ],
)
def test_the_results_are_those_of_the_studies(row: str, studies: list[str]) -> None:
    """Means and the paired difference; its interval stands in the claims, which a test compares."""
    (line,) = [line for line in README.splitlines() if line.startswith("|") and row in line]
    runs: dict[str, list[float]] = {"repro": [], "gigpo": []}
    for study in studies:
        evaluation = json.loads((DATA / f"{study}.json").read_text())["evaluations"][0]
        for arm in evaluation["arms"]:
            if arm["name"] in runs:
                runs[arm["name"]] += [value for _, value in sorted(arm["success"]["by_seed"].items())]
    means = {name: sum(values) / len(values) for name, values in runs.items()}
    cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
    assert cells[1:4] == [str(len(runs["repro"])), *(f"{means[n]:.3f}"[1:] for n in ("repro", "gigpo"))]
    difference = f"{means['repro'] - means['gigpo']:+.3f}".replace("0.", ".", 1).replace("-", "−")
    assert cells[4].startswith(difference + " [")
    assert cells[4] in (ROOT / "docs" / "results.md").read_text()


def test_the_sample_is_of_the_panel_that_the_demo_plays() -> None:
    config = repro_rl.load_config("sokoban-tiny")
    env = repro_rl.make("sokoban", **config.env.settings)
    label = env.panel("test").head(config.eval.tasks).label()
    assert README.count(f"on {label}:") == 2


def test_the_paper_is_cited_by_its_title() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert README.replace("\n", " ").count(TITLE) == 2
    assert TITLE in citation
    authors = re.findall(r"family-names: (\w+), given-names: (\w+)", citation)
    listed = re.search(r"author  = \{(.*?)\}", README, re.DOTALL)
    assert listed
    assert listed[1].split() == " and ".join(f"{family}, {given}" for family, given in authors).split()


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == repro_rl.__version__
    assert f"\nversion: {repro_rl.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {repro_rl.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
