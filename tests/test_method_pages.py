"""The pages of the method: tables of settings and formulas say what the code does."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from repro_rl.config import load_config, parse_config
from repro_rl.config.recipe_files import recipe_names
from repro_rl.credit.reward import REFLECTION_TERMS, TERMS
from repro_rl.demos import ANNOTATORS
from support.extending_page import DOCS


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table under a heading, without its head."""
    text = (DOCS / f"{page}.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in table[2:]]


def means(cell: str) -> object:
    """A cell of the table of recipes as the value of its setting."""
    if re.fullmatch(r"[\d./]+", cell):
        return float(Fraction(cell) if "/" in cell else cell)
    return {"all": 1.0, "the rollouts'": None, "\u2013": None}.get(cell, cell)


RECIPES = {  # first cell -> recipes; "" is a file without base
    "`sokoban-tiny`, `alfworld-tiny`": ["sokoban-tiny", "alfworld-tiny"],
    "`webshop-tiny`": ["webshop-tiny"],
    "`sokoban-tiny-rare`": ["sokoban-tiny-rare"],
    "`\u2026-135m`, `\u2026-0.5b`": [n for n in recipe_names() if n.endswith(("-135m", "-0.5b"))],
    "`paper/\u2026`, `sokoban-qwen3`, `webshop-qwen2.5`, those of verl": [
        *(n for n in recipe_names() if n.startswith("paper/")),
        *("sokoban-qwen3", "webshop-qwen2.5"),
    ],
    "a file without `base` ([defaults](settings.md))": [""],
}
TABLE = {row[0]: row[1:] for row in rows("methods", "What RePro means in each recipe")}


def test_every_recipe_has_a_row() -> None:
    assert list(TABLE) == list(RECIPES)
    assert sorted(name for names in RECIPES.values() for name in names if name) == sorted(recipe_names())


@pytest.mark.parametrize(("row", "name"), [(row, name) for row, names in RECIPES.items() for name in names])
def test_the_table_of_recipes_is_right(row: str, name: str) -> None:
    method = (load_config(name) if name else parse_config({})).method
    *cells, rehearsal = TABLE[row]
    fields = ("beta", "gamma", "judge_pool", "judge_temperature", "reflect_share", "reflect_coef")
    assert [getattr(method, field) for field in fields] == [means(cell) for cell in cells]
    count, coef = ("0", "1") if rehearsal == "none" else rehearsal.split(", ")
    assert (method.rehearsal, method.rehearsal_coef) == (int(count), float(coef))
    same = (method.alpha, method.format_coef, method.boundary_coef, method.invalid_penalty)
    assert same == (0.5, 0.1, 0.1, 0.1)


def test_every_term_of_the_reward_is_in_its_table() -> None:
    assert [row[0] for row in rows("repro-po", "Reward")] == [f"`{term}`" for term in (*TERMS, "overlong")]


def test_every_term_of_the_reflection_is_in_its_equation() -> None:
    text = (DOCS / "judge.md").read_text()
    assert f"(5)  {' + '.join(REFLECTION_TERMS)}\n" in text


def test_every_annotator_is_in_its_table() -> None:
    assert sorted(row[0] for row in rows("warmup", "Annotators")) == sorted(
        f"`{name}`" for name in ANNOTATORS.names()
    )
