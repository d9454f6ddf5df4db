"""Alarms: each warns, then stops the run when it lasts."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from repro_rl.config import AlarmSection
from repro_rl.rollout.counts import causes
from repro_rl.run.alarms import Alarms, evaluation_alarms, warmup_alarm


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("update/entropy", 0.001, 0.5),
        ("rollout/cut_off", 0.99, 0.1),
        ("rollout/invalid_rate", 0.9, 0.1),
        ("update/kl", 6.0, 0.1),
        ("update/mismatch", 0.2, 0.01),
        ("update/skipped", 2.0, 0.0),
    ],
)
def test_each_alarm_warns_then_stops(name, bad, good):
    alarms = Alarms(AlarmSection(patience=3))
    assert alarms.check({name: good}) == ([], None)
    for value in (bad, bad, good, bad, bad):
        warnings, reason = alarms.check({name: value})
        assert reason is None
        assert len(warnings) == (value == bad)
    assert name.split("/")[1] in warnings[0]
    warnings, reason = alarms.check({name: bad})
    assert "3 iterations in a row" in reason
    patient = Alarms(AlarmSection(patience=0))
    assert all(patient.check({name: bad})[1] is None for _ in range(20))


def test_what_is_not_finite_stops_at_once():
    for value in (math.nan, math.inf):
        warnings, reason = Alarms(AlarmSection(patience=0)).check({"update/loss": value, "x": 1.0})
        assert "update/loss not finite" in reason
        assert warnings == [reason]


def test_alarm_limits_are_not_crossed_by_equality_or_absence():
    limits = AlarmSection(max_kl=2.0)
    assert Alarms(limits).check({"update/kl": 2.0}) == ([], None)
    assert Alarms(limits).check({}) == ([], None)


def test_skipped_mini_batches_are_named_before_what_they_make_of_the_metrics():
    alarms = Alarms(AlarmSection(patience=2))
    row = {"update/skipped": 2.0, "update/entropy": 0.0}
    assert "skipped" in alarms.check(row)[0][0]
    assert "mini-batches skipped" in alarms.check(row)[1]


def test_a_warm_start_that_never_wins_is_named_now_and_then():
    alarms = Alarms(AlarmSection(patience=1))
    told = []
    for iteration in range(1, 23):
        warnings, reason = alarms.check({"rollout/success": 0.0})
        assert reason is None
        told += [iteration] if warnings else []
    assert told == [1, 11, 21]
    assert alarms.check({"rollout/success": 0.1}) == ([], None)
    assert "no episode was won (1 iteration in a row): only" in alarms.check({"rollout/success": 0.0})[0][0]


def test_a_judge_that_nobody_can_read_is_named_now_and_then():
    alarms = Alarms(AlarmSection(patience=1))
    told = {}
    for iteration in range(1, 12):
        warnings, reason = alarms.check({"reflect/valid": 0.09})
        assert reason is None
        told |= dict.fromkeys(warnings, iteration)
    first, second = told
    assert list(told.values()) == [1, 11]
    assert first.startswith(
        "hardly a reflection was valid (1 iteration in a row): episodes without one get no reward "
        "from it, and no self-distillation; teach"
    )
    assert second.startswith("hardly a reflection was valid (11 iterations in a row): ")
    assert alarms.check({"reflect/valid": 0.1}) == ([], None)
    assert alarms.check({}) == ([], None)  # a method without a judge


def evaluated(**changes):
    result = {
        "episodes": 10,
        "errors": 0.0,
        "error_reasons": {},
        "api": None,
        "invalid_rate": 0.2,
        "format_rate": 0.9,
    }
    return evaluation_alarms({**result, **changes})


def test_evaluations_that_say_nothing():
    assert evaluated() == []
    assert evaluated(invalid_rate=0.99, format_rate=0.01) == []
    assert "Every action was impossible" in evaluated(invalid_rate=1.0)[0]
    assert "No answer had the form" in evaluated(format_rate=0.0)[0]
    some = evaluated(errors=3.0, error_reasons={"lost": 2, "late": 1})
    assert some == ["3 of 10 episodes broke off and count as not won: lost (2 times), late (1 time)."]
    assert "No episode was played to its end" in evaluated(errors=10.0, error_reasons={"lost": 10})[1]
    lost = {"no completion at step 2: status 503": 2, "no completion at step 4: no connection": 1}
    assert evaluated(errors=3.0, error_reasons=lost, api={"failed": 3}) == []
    both = evaluated(errors=4.0, error_reasons={**lost, "KeyError at step 1: 'sink'": 1}, api={"failed": 3})
    assert both == ["1 of 10 episodes broke off and count as not won: KeyError at step 1: 'sink' (1 time)."]


def test_all_broken_episodes_are_counted_where_few_reasons_are_named():
    named = {f"KeyError: room {n}": 1 for n in range(20)}
    (line,) = evaluated(episodes=100, errors=60.0, error_reasons=named)
    assert line.startswith("60 of 100 episodes broke off and count as not won: KeyError: room 0 (1 time), ")
    (line,) = evaluated(episodes=100, errors=60.0, error_reasons=named, api={"failed": 15}, unanswered=15)
    assert line.startswith("45 of 100 episodes broke off")
    server = {f"no completion: status {n}": 2 for n in range(20)}
    assert evaluated(episodes=100, errors=60.0, error_reasons=server, api={"failed": 55}, unanswered=55) == [
        "5 of 100 episodes broke off and count as not won."
    ]


def test_reasons_at_several_steps_are_one_cause():
    reasons = Counter({f"KeyError at step {t}: no door at step 9": 1 for t in range(30)})
    reasons += Counter({f"prompt of step {t} is longer than 20 tokens": 2 for t in range(3)})
    assert causes(reasons) == {"KeyError: no door at step 9": 30, "prompt is longer than 20 tokens": 6}


def test_a_warmup_that_never_wins():
    assert warmup_alarm([], 8) is None
    assert warmup_alarm([0.0, 0.1], 8) is None
    assert "success 0 in all 2 validations on 8 tasks" in warmup_alarm([0.0, 0.0], 8)
    assert "success 0 in its only validation on 1 task." in warmup_alarm([0.0], 1)
