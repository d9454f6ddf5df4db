"""The cluster bootstrap."""

import math
import random

import pytest

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.study.resample import Resampler, interval, ratio
from repro_rl.study.series import spearman


def test_resamples_draw_whole_clusters_and_index_0_is_the_sample():
    drawn = Resampler(["a", "b", "a"], resamples=50, seed=1)
    totals = drawn.totals({"x": [1.0, 10.0, 2.0], "n": [1.0, 1.0, 1.0]})
    assert (totals["x"][0], totals["n"][0]) == (13.0, 3.0)
    # two clusters drawn of {a: 3, b: 10}: aa, ab or bb
    assert set(totals["x"][1:]) == {6.0, 13.0, 20.0}
    again = Resampler(["a", "b", "a"], resamples=50, seed=1)
    assert (again.counts == drawn.counts).all()


def test_rank_correlation_of_a_resample_is_that_of_the_repeated_data():
    rng = random.Random(3)
    pairs = [(rng.randrange(5), rng.randrange(5)) for _ in range(12)]
    owners = [n // 2 for n in range(12)]
    drawn = Resampler(range(6), resamples=20)
    values = drawn.spearman(owners, pairs)
    for row, value in zip(drawn.counts, values, strict=True):
        repeated = [pair for owner, pair in zip(owners, pairs, strict=True) for _ in range(row[owner])]
        assert value == pytest.approx(spearman(repeated))
    assert math.isnan(drawn.spearman([0, 1], [(1, 1), (2, 2)])[0])
    assert math.isnan(drawn.spearman([0, 1, 2], [(1, 1), (1, 2), (1, 3)])[0])


def test_intervals_need_a_measure_that_nearly_every_resample_defines():
    import numpy as np

    values = np.array([0.5] + [0.4] * 50 + [0.6] * 50)
    assert interval(values, 100) == {"value": 50.0, "low": pytest.approx(40), "high": pytest.approx(60)}
    values[1:20] = math.nan
    assert interval(values) == {"value": 0.5, "low": None, "high": None}
    assert interval(np.array([math.nan]))["value"] is None
    assert interval(np.array([0.5])) == {"value": 0.5, "low": None, "high": None}  # one cluster
    assert np.isnan(ratio(np.array([1.0]), np.array([0.0]))).all()
