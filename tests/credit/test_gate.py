"""The judge's agreement with the state graph, the weight from it, and the graph in the judge's place."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from repro_rl.config.method import MethodSection
from repro_rl.credit import CreditSettings, RewardSettings, assign_credit, judge_agreement
from repro_rl.credit.gate import gate
from repro_rl.credit.sources import group_series, reads_reflections
from repro_rl.types import Group
from support.credit_cases import judged_walk

WON = judged_walk(list("ABCD"), [20, 50, 90], won=True)  # the anchor makes 90 100
LOST = judged_walk(list("ABAX"), [10, 0, 30])
MIXED = Group("mixed", [WON, LOST])
NOBODY = Group("nobody", [judged_walk(list("AB"), [40]), judged_walk(list("AC"), [20])])
SETTINGS = RewardSettings(shaping="retrospective")
# Judged gains .2 .3 .5 and .1 -.1 .3; the graph's 1/3 1/3 1/3 and 1/3 -1/3 0: covariance .183333 / 6 and
# variances .208333 / 6 and .388889 / 6.
AGREEMENT = 0.183333 / (0.208333 * 0.388889) ** 0.5


def test_agreement_is_the_correlation_of_gains_in_tasks_with_a_win() -> None:
    assert judge_agreement([MIXED], SETTINGS) == pytest.approx(AGREEMENT, abs=1e-5)
    # Nothing is counted of a task without a win, of an episode that broke off, of one without a reflection.
    broken = judged_walk(list("ACD"), [90, 95], won=True, error="lost")
    silent = judged_walk(list("AB"), None)
    more = [Group("mixed", [WON, LOST, broken, silent]), NOBODY]
    assert judge_agreement(more, SETTINGS) == pytest.approx(AGREEMENT, abs=1e-5)


def test_without_evidence_there_is_no_agreement_and_the_weight_is_one() -> None:
    assert judge_agreement([], SETTINGS) is None
    assert judge_agreement([NOBODY], SETTINGS) is None
    only = Group("one way", [judged_walk(list("AB"), [70], won=True)])  # one step: nothing to correlate
    assert judge_agreement([only], SETTINGS) is None
    assert gate(None) == 1.0
    assert gate(-0.4) == 0.0
    assert gate(0.4) == 0.4


def test_gated_shaping_is_weighed_in_every_task() -> None:
    plain = CreditSettings(shaping="retrospective", beta=10)
    groups = [MIXED, NOBODY]
    assign_credit(groups, plain)
    before = [step.terms["shaping"] for group in groups for t in group.trajectories for step in t.steps]
    assert before[:3] == pytest.approx([2.0, 3.0, 5.0])
    assign_credit(groups, plain.model_copy(update={"judge_gate": "graph"}))
    after = [step.terms["shaping"] for group in groups for t in group.trajectories for step in t.steps]
    assert after == pytest.approx([AGREEMENT * value for value in before], abs=1e-4)
    assert [step.terms["env"] for step in WON.steps] == [0.0, 0.0, 0.0]  # nothing else is weighed


def test_the_graph_where_somebody_won_else_the_judge() -> None:
    assert group_series(MIXED, "graph_or_judged", SETTINGS) == group_series(MIXED, "graph", SETTINGS)
    assert group_series(NOBODY, "graph_or_judged", SETTINGS) == [[0.0, 0.4], [0.0, 0.2]]
    pooled = SETTINGS.model_copy(update={"judge_pool": "state"})
    same = Group("nobody", [judged_walk(list("AB"), [40]), judged_walk(list("AB"), [20])])
    assert group_series(same, "graph_or_judged", pooled) == [[0.0, pytest.approx(0.3)]] * 2


def test_settings_that_need_a_reflection_or_the_judge() -> None:
    assert reads_reflections("graph_or_judged")
    assert reads_reflections("retrospective")
    assert not any(reads_reflections(name) for name in ("none", "outcome", "graph", "oracle", "online"))
    with pytest.raises(ValidationError, match=r"method\.shaping 'graph_or_judged' needs method.reflect true"):
        MethodSection(reflect=False, shaping="graph_or_judged", progress=False)
    with pytest.raises(ValidationError, match=r"needs method\.shaping 'retrospective'"):
        MethodSection(reflect=True, shaping="graph", judge_gate="graph")
