"""The measures of a progress series, with intervals and paired, by hand."""

import json

import pytest

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.study.progress import compare_series, measures, progress_quality
from repro_rl.study.progress_report import measure_set
from repro_rl.study.resample import Resampler
from support.progress_records import (
    EVALUATION,
    LOST,
    WON,
    episodes,
    record,
    sampler,
    some_records,
)


@pytest.mark.parametrize("which", ["online", "retrospective", "truth"])
def test_values_are_those_of_the_evaluation(which):
    rows = some_records()
    found, quality = measures(episodes(*rows), which, sampler(episodes(*rows))), progress_quality(rows, which)
    shared = set(found) & set(quality)
    assert len(shared) == (17 if which == "truth" else 22)  # no gains of the truth against itself
    for key in shared:
        assert found[key]["value"] == quality[key], key
    for part in ("success", "failure"):
        assert found[f"spearman_{part}"]["count"] == quality[f"spearman_{part}_episodes"]


def test_intervals_hold_the_value_and_are_strict_json():
    rows = episodes(*some_records())
    for value in measures(rows, "retrospective", sampler(rows)).values():
        if value["low"] is not None:
            assert value["low"] <= value["value"] <= value["high"]
    assert measures([], "online", Resampler([])) == {}
    json.dumps(measure_set(EVALUATION, rows, resamples=20), allow_nan=False)
    json.dumps(measure_set(EVALUATION, [], resamples=20), allow_nan=False)


def test_constant_series_are_counted_apart():
    flat = record(False, [0, 0, 0], [0.1, 0.2, 0.3], task="c")
    short = record(False, [0, 0], [0.1, 0.2], task="d")
    rows = episodes(LOST, flat, short)
    found = measures(rows, "online", sampler(rows))
    assert found["constant_failure"]["value"] == 1 / 2  # of LOST and flat; two steps are too few
    assert found["spearman_failure"]["count"] == 1


def test_paired_comparison_by_hand():
    gap = record(True, [None, 50, 100], [0.5, 0.5, 1.0], [0, 70, 100], task="c")
    rows = episodes(WON, LOST, gap)
    found = compare_series(rows, sampler(rows))
    # online: 5 40 15 0, 30 40 90, then 0 0 on the steps that have both
    # retrospective: 5 10 15 0, 10 20 0, then 20 0
    assert found["mae"]["online"] == pytest.approx(220 / 9)
    assert found["mae"]["retrospective"] == pytest.approx(80 / 9)
    assert found["mae"]["value"] == pytest.approx(-140 / 9)
    assert found["mae_failure"]["value"] == pytest.approx((30 - 160) / 3)
    # in LOST -.5 against 1: see test_progress_quality.py
    assert found["spearman_failure"]["value"] == pytest.approx(1.5)
    assert found["spearman_success"]["value"] == pytest.approx(1.0 - 0.8)
    assert found["spearman_success"]["count"] == 1  # two steps are too few in gap
    alone = episodes(record(True, [1, 2], [0.1, 1.0]))
    assert compare_series(alone, sampler(alone)) == {}


def test_pairing_makes_a_constant_difference_certain():
    rows = episodes(
        *(
            record(False, [v + 10, v + 10, v + 10], [v / 100] * 3, [v + 5] * 3, task=f"t{v}")
            for v in range(0, 80, 5)
        )
    )
    mae = compare_series(rows, sampler(rows))["mae"]
    assert (mae["value"], mae["low"], mae["high"]) == pytest.approx((-5, -5, -5))
