import json

import numpy as np
import pytest

from repro_rl.errors import DataError
from repro_rl.study.progress import progress_quality
from repro_rl.study.series import by_fraction, series_of, spearman


def episode(won, online, truth, values=None, **more):
    steps = [
        {"t": t + 1, "online": q, "truth": p} for t, (q, p) in enumerate(zip(online, truth, strict=True))
    ]
    reflection = None if values is None else {"values": values}
    return {"won": won, "error": None, "steps": steps, "reflection": reflection, **more}


WON = episode(True, [20, 10, 60, 100], [0.25, 0.5, 0.75, 1.0], [30, 40, 90, 100])
LOST = episode(False, [50, 80, 90], [0.2, 0.4, 0.0], [10, 20, 0])


def test_series():
    assert series_of(WON, "online") == [0.2, 0.1, 0.6, 1.0]
    assert series_of(WON, "retrospective") == [0.3, 0.4, 0.9, 1.0]
    assert series_of(WON, "truth") == [0.25, 0.5, 0.75, 1.0]
    assert series_of(episode(True, [None, 5], [None, 1.0]), "retrospective") == [None, None]
    # one value for two steps
    assert series_of(episode(True, [1, 5], [0.0, 1.0], [7]), "retrospective") == [None, None]
    with pytest.raises(DataError, match="online, retrospective or truth"):
        series_of(WON, "inner")


def test_online_by_hand():
    q = progress_quality([WON, LOST], "online")
    assert (q["episodes"], q["successes"], q["failures"]) == (2, 1, 1)
    assert q["covered"] == q["step_covered"] == 1.0
    # (20 + 10 + 60)/3 - (50 + 80)/2 ; truth (25 + 50 + 75)/3 - (20 + 40)/2
    assert q["discrimination"] == pytest.approx(30 - 65)
    assert q["truth_discrimination"] == pytest.approx(50 - 30)
    assert q["leakage"] == pytest.approx(-55)
    assert q["monotonicity"] == 3 / 4  # 0→20, 20→10 falls, 10→60, 60→100
    assert q["monotone_episodes"] == 0.0
    assert q["decay_failures"] == 0.0
    assert q["mae_success"] == pytest.approx((5 + 40 + 15 + 0) / 4)
    assert q["mae_failure"] == pytest.approx((30 + 40 + 90) / 3)
    assert q["mae"] == pytest.approx((60 + 160) / 7)
    assert (q["final_success"], q["final_failure"]) == (100.0, 90.0)
    # ranks 2 1 3 4 against 1 2 3 4: 1 - 6*2/(4*15) = .8 ; 1 2 3 against 2 3 1: 1 - 6*6/(3*8) = -.5
    assert q["spearman_success"] == pytest.approx(0.8)
    assert q["spearman_failure"] == pytest.approx(-0.5)
    assert q["pooled_spearman_success"] == pytest.approx(0.8)
    # gains 50 30 10 against 20 20 -40: ranks 3 2 1 against 2.5 2.5 1: .866
    assert q["gain_spearman_failure"] == pytest.approx(np.sqrt(3) / 2)
    assert q["gain_spearman_success"] is None  # the truth gains .25 at each step
    # .5 .8 .9 against .2 .4 0: r = -.02 / sqrt(.26/3 * .08) = -.2402
    assert q["epic_failure"] == pytest.approx(np.sqrt((1 + 0.02 / np.sqrt(0.26 / 3 * 0.08)) / 2))


def test_retrospective_by_hand():
    q = progress_quality([WON, LOST], "retrospective")
    assert q["discrimination"] == pytest.approx(160 / 3 - 15)
    assert q["monotonicity"] == q["monotone_episodes"] == 1.0
    assert q["decay_failures"] == 1.0
    assert q["spearman_failure"] == pytest.approx(1.0)
    assert q["spearman_failure_episodes"] == 1


def test_mean_is_within_the_episode_first():
    long = episode(True, [0] * 9 + [100], [None] * 10)
    short = episode(True, [80, 100], [None] * 2)
    lost = episode(False, [10, 10], [None] * 2)
    q = progress_quality([long, short, lost], "online")
    assert q["discrimination"] == pytest.approx((0 + 80) / 2 - 10)
    assert q["truth_discrimination"] is None
    assert q["leakage"] is None
    assert q["mae"] is None


def test_gaps_are_skipped_not_bridged():
    gap = episode(True, [None, 40, None, 30, 100], [0.2, 0.4, 0.6, 0.8, 1.0])
    q = progress_quality([gap], "online")
    assert q["monotonicity"] == 1.0  # only 30→100 has both ends
    assert q["step_covered"] == 3 / 5
    assert (q["covered_success"], q["covered_failure"]) == (1.0, None)
    assert q["covered"] == 1.0
    assert q["mae"] == pytest.approx((0 + 50 + 0) / 3)
    assert q["discrimination"] is None  # no failure to compare with


def test_one_step_episodes_broken_ones_and_nothing():
    one = episode(True, [100], [1.0], [100])
    broken = episode(False, [10, 20], [0.0, 0.0], error="boom")
    q = progress_quality([one, broken, episode(False, [], [])], "retrospective")
    assert q["episodes"] == 1
    assert q["discrimination"] is None
    assert q["monotonicity"] == 1.0
    assert q["spearman_success"] is None
    empty = progress_quality([], "online")
    assert empty["episodes"] == 0
    assert empty["covered"] is None
    assert set(empty) == set(q)


def test_results_are_strict_json():
    strange = episode(False, [float("nan"), None, True], [float("inf"), None, 0.5])
    for which in ("online", "retrospective", "truth"):
        json.dumps(progress_quality([WON, LOST, strange], which), allow_nan=False)


def test_truth_against_itself():
    q = progress_quality([WON, LOST], "truth")
    assert q["mae"] == 0.0
    assert q["leakage"] == 0.0
    assert q["spearman_success"] == 1.0


def test_spearman_ties_and_constants():
    assert spearman([(1, 5), (2, 5), (3, 5)]) is None
    assert spearman([(1, 1), (2, 2)]) is None
    assert spearman([(1, 3), (2, 2), (3, 1)]) == -1.0


def test_by_fraction():
    two = by_fraction([WON, LOST, episode(True, [None], [1.0])], "online", won=True, points=5)
    np.testing.assert_allclose(two, [[0, 0.2, 0.1, 0.6, 1.0]])
    gap = by_fraction([episode(False, [None, 50], [0.0, 0.0])], "online", won=False, points=3)
    np.testing.assert_allclose(gap, [[0, 0.25, 0.5]])
    assert by_fraction([], "truth", won=False).shape == (0, 11)


@pytest.mark.parametrize(
    ("values", "distance"),
    [([10, 20, 30, 40], 0.0), ([2, 4, 6, 8], 0.0), ([40, 30, 20, 10], 1.0), ([10, 30, 30, 10], np.sqrt(0.5))],
)
def test_epic_is_the_distance_up_to_scale_and_offset(values, distance):
    truth = [0.5, 0.6, 0.7, 0.8]
    q = progress_quality([episode(False, values, truth)], "online")
    assert q["epic"] == q["epic_failure"] == pytest.approx(distance, abs=1e-7)
    assert q["epic_success"] is None


def test_epic_is_none_for_a_judge_that_always_says_the_same():
    q = progress_quality([episode(False, [10, 10, 10, 10], [0.1, 0.2, 0.3, 0.1])] * 3, "online")
    assert (q["epic"], q["epic_failure"]) == (None, None)


def test_epic_agrees_with_numpy_over_many_episodes():
    rng = np.random.default_rng(0)
    rows = [episode(bool(i % 2), rng.integers(0, 101, 5).tolist(), rng.random(5).tolist()) for i in range(20)]
    for name, chosen in (("epic", rows), ("epic_success", rows[1::2]), ("epic_failure", rows[::2])):
        x = [step["online"] for row in chosen for step in row["steps"]]
        y = [step["truth"] for row in chosen for step in row["steps"]]
        expected = np.sqrt((1 - np.corrcoef(x, y)[0, 1]) / 2)
        assert progress_quality(rows, "online")[name] == pytest.approx(expected)
