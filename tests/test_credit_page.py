"""docs/credit.md and the pages beside it: their numbers are right, and every rule and loss has its place."""

from __future__ import annotations

import json
import re
from typing import get_args

from repro_rl.credit import CREDIT, SOURCES
from repro_rl.losses.named import PUBLISHED, Aggregation
from support.extending_page import DOCS, blocks

PAGE, LOSSES, PROGRESS, NUMBERS = (
    DOCS / f"{name}.md" for name in ("credit", "losses", "progress-sources", "credit-numbers")
)
PARTS = ("Use it*", "Settings:*", "Source:*", "Our figure:*")  # of the section of a rule, in this order


def sections() -> dict[str, str]:
    """Anchor -> the section of a rule: those that begin with a formula."""
    found = re.findall(r"^## (.*)\n(```\n(?:(?!## ).*\n)+)", PAGE.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"): text for title, text in found}


def table() -> list[list[str]]:
    """The cells of a rule's row: its link, method, ..., Sokoban, learning rate, ALFWorld, WebShop."""
    rows = re.findall(r"^\| (\[`\w+`\]\(#.*) \|$", PAGE.read_text(), re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def test_the_numbers_of_the_page_are_right():
    examples = blocks(NUMBERS, "python")
    assert len(examples) == 2
    for code in examples:
        exec(compile(code, NUMBERS.name, "exec"), {})


def test_every_credit_rule_loss_and_source_has_its_place(my_rl):
    rules = [name for name in CREDIT.names() if CREDIT.get(name).shipped]
    listed = {row[0].split("`")[1] for row in table()}
    assert [name for name in rules if name not in listed] == ["mt_grpo_multi"]  # a form of mt_grpo
    text = LOSSES.read_text()
    assert [name for name in PUBLISHED if f"| `{name}` |" not in text] == []
    assert [name for name in get_args(Aggregation) if f"`{name}`" not in text] == []
    own = {"valid-steps", "by-shortest"}  # of the example module
    text = PROGRESS.read_text()
    assert [name for name in SOURCES.names() if f"`{name}`" not in text and name not in own] == []


def test_every_rule_has_the_same_parts():
    found = sections()
    assert len(found) == 14
    for title, text in found.items():
        parts = re.findall(r"^- \*([A-Z][\w ]+:?\*)", text, re.MULTILINE)
        assert tuple(parts[:4]) == PARTS, title
        assert re.search(r"`credit/\w+\.py`", text.partition("- *Source:*")[2]), title


def test_the_table_leads_to_the_section_with_its_figures():
    found = sections()
    rows = table()
    assert len(rows) == 15
    for link, _, _, _, _, sokoban, _, alfworld, _ in rows:
        text = found[link.partition("(#")[2].rstrip(")")]
        figure = text.partition("- *Our figure:*")[2].partition("\n- *")[0]
        for value in filter(None, (sokoban, alfworld)):
            assert value in figure, link


def test_the_learning_rates_of_the_table_are_those_that_the_sweep_chose():
    chosen = json.loads((DOCS / "data" / "zoo_sokoban_sweep.json").read_text())["arms"]
    for _, method, *_, rate, _, _ in table():
        assert float(rate) == chosen[method.strip("`")]["chosen"]["train.lr"], method
