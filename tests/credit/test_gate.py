"""The judge's agreement with the state graph, the weight from it, and the graph in the judge's place."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from repro_rl.config.method import MethodSection
from repro_rl.config.methods import METHODS
from repro_rl.credit import CreditSettings, RewardSettings, assign_credit, judge_agreement
from repro_rl.credit.gate import gate
from repro_rl.credit.sources import group_series, reads_lost_only, reads_reflections
from repro_rl.losses.settings import DistillSection
from repro_rl.types import Group
from support.credit_cases import advantages, judged_walk

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


def test_state_values_where_somebody_won_else_the_judge() -> None:
    mixed = group_series(MIXED, "graph_value_or_judged", SETTINGS)
    assert mixed == group_series(MIXED, "graph_value", SETTINGS)
    assert mixed != group_series(MIXED, "graph", SETTINGS)
    assert group_series(NOBODY, "graph_value_or_judged", SETTINGS) == [[0.0, 0.4], [0.0, 0.2]]


def test_the_judge_alone_where_nobody_won() -> None:
    assert group_series(MIXED, "judged_where_lost", SETTINGS) == [None, None]
    assert group_series(NOBODY, "judged_where_lost", SETTINGS) == [[0.0, 0.4], [0.0, 0.2]]
    broken = Group("broken", [LOST, judged_walk(list("AB"), [40], won=True, error="lost")])
    assert group_series(broken, "judged_where_lost", SETTINGS)[0] == [0.0, 0.1, 0.0, 0.3]  # no win is known


def test_g2po_takes_judged_values_only_where_the_outcomes_tell_nothing() -> None:
    def steps(source: str, group: Group) -> list[float]:
        assign_credit([group], CreditSettings(credit="g2po", value_source=source, normalize="mean"))
        return advantages([group])

    assert steps("judged_where_lost", MIXED) == steps("outcome", MIXED)
    assert steps("judged_where_lost", MIXED) != steps("retrospective", MIXED)
    assert steps("judged_where_lost", NOBODY) == steps("retrospective", NOBODY)
    # Judged gains of 4 and 2 (success_value 10), less their mean; both leave A, so b counts twice.
    assert steps("judged_where_lost", NOBODY) == pytest.approx([2.0, -2.0])


def test_settings_that_need_a_reflection_or_the_judge() -> None:
    assert reads_reflections("graph_or_judged")
    assert reads_reflections("retrospective")
    assert not any(reads_reflections(name) for name in ("none", "outcome", "graph", "oracle", "online"))
    with pytest.raises(ValidationError, match=r"method\.shaping 'graph_or_judged' needs method.reflect true"):
        MethodSection(reflect=False, shaping="graph_or_judged", progress=False)
    with pytest.raises(ValidationError, match=r"needs method\.shaping 'retrospective'"):
        MethodSection(reflect=True, shaping="graph", judge_gate="graph")


@pytest.mark.parametrize(
    ("name", "lost_only"),
    [
        *(("repro", False), ("repro-act-gated-fixed-judge", False), ("gigpo", False)),
        *(("repro-act-graph", False), ("repro-act-graph-fixed-judge", True)),  # the first trains reflections
        *(("repro-act-value-fixed-judge", True), ("g2po-judged-where-lost-fixed-judge", True)),
        *(("g2po-judged-where-lost", False), ("g2po-judged", False)),
    ],
)
def test_a_frozen_judge_is_asked_where_its_answer_is_used(name: str, lost_only: bool) -> None:
    if name == "repro-act-gated-fixed-judge":
        method = MethodSection(name="repro-act", progress=False, judge="reference", judge_gate="graph",
                               shaping="retrospective")  # fmt: skip
    else:
        method = MethodSection(name=name, **METHODS.get(name))
    assert method.judges_lost_only is lost_only
    if lost_only:
        assert not method.model_copy(update={"distill": DistillSection(coef=0.1)}).judges_lost_only
        assert not method.model_copy(update={"shaping": "retrospective"}).judges_lost_only


def test_which_sources_read_lost_tasks_only() -> None:
    names = ("graph_or_judged", "graph_value_or_judged", "judged_where_lost", "none", "outcome", "graph")
    assert all(map(reads_lost_only, names))
    assert not reads_lost_only("retrospective")
