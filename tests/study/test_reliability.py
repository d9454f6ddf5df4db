"""Bins of reported progress and the calibration error, by hand."""

import pytest

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.study.reliability import bin_of, reliability
from support.progress_records import (
    episodes,
    record,
    sampler,
)


def test_bins_and_their_edges():
    assert [bin_of(value) for value in (0.0, 0.09, 0.1, 0.3, 0.7, 0.99, 1.0)] == [0, 0, 1, 3, 7, 9, 9]


def test_reliability_by_hand():
    rows = episodes(
        record(True, [12, 18, 100], [0.2, 0.6, 1.0], task="a"), record(False, [15, 50], [0.1, 0.3], task="b")
    )
    value = reliability(rows, "online", "truth", sampler(rows))
    first, middle, last = value["bins"]
    assert (first["low"], first["steps"], first["episodes"]) == (10, 3, 2)
    assert first["said"] == pytest.approx(15)
    assert first["met"]["value"] == pytest.approx(30)
    assert (middle["met"]["value"], last["met"]["value"]) == (pytest.approx(30), pytest.approx(100))
    assert value["ece"]["value"] == pytest.approx((3 * 15 + 20 + 0) / 5)
    # success: steps before the last, 12 18 of the win and 15 of the loss
    value = reliability(rows, "online", "success", sampler(rows))
    assert value["steps"] == 3
    assert value["bins"][0]["met"]["value"] == pytest.approx(200 / 3)
    assert value["ece"]["value"] == pytest.approx(200 / 3 - 15)
    assert reliability(rows, "retrospective", "truth", sampler(rows)) is None
