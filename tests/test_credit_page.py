"""docs/credit.md: its numbers are right, and every rule and loss has its place."""

from __future__ import annotations

import json
import re
from typing import get_args

from repro_rl.credit import CREDIT
from repro_rl.losses.named import PUBLISHED, Aggregation
from support.extending_page import ROOT, blocks

PAGE = ROOT / "docs" / "credit.md"


def test_the_numbers_of_the_credit_page_are_right():
    for code in blocks(PAGE, "python"):
        exec(compile(code, PAGE.name, "exec"), {})


def test_every_credit_rule_and_loss_has_its_place_on_the_page(my_rl):
    text = PAGE.read_text()
    rules = [name for name in CREDIT.names() if CREDIT.get(name).shipped]
    assert [name for name in rules if f"`{name}`" not in text and name != "mt_grpo_multi"] == []
    assert [name for name in PUBLISHED if f"| `{name}` |" not in text] == []
    assert [name for name in get_args(Aggregation) if f"`{name}`" not in text] == []


def test_every_rule_says_when_to_use_it():
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)+)", PAGE.read_text(), re.MULTILINE))
    rules = [text for text in sections.values() if text.startswith("`credit/")]
    assert len(rules) == 14
    assert [text[:40] for text in rules if not re.search(r"Use\s+it\b|- \*Use it\* ", text)] == []


def test_the_learning_rates_of_the_table_are_those_that_the_sweep_chose():
    chosen = json.loads((PAGE.parent / "data" / "zoo_sokoban_sweep.json").read_text())["arms"]
    rows = re.findall(r"^\| \[`.*?\| `([\w-]+)` \|.* (\S+) \| *\.?\d* \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 15
    for name, rate in rows:
        assert float(rate) == chosen[name]["chosen"]["train.lr"], name
