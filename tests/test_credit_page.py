"""docs/credit.md: its numbers are right, and every rule and loss has its place."""

from __future__ import annotations

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
