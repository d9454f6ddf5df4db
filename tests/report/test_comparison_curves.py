"""One figure of many arms shows the references and the best others; the ranking shows every arm."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.image import imread

from repro_rl.report.canvas import small_multiples
from repro_rl.report.comparison import MOST_LINES, ranked_arms, ranking, shown_together, together
from repro_rl.report.lines import PALETTE, Ranked, Spread, band


def study(count):
    """Arms named by their rank, in another order; the reference is the last but one."""
    names = [f"arm{i:02}" for i in range(count)]
    arms = [{"name": name, "success": {"mean": 0.9 - i / 100}} for i, name in enumerate(names)]
    reference = names[-2]
    return {
        "study": {"methods": [{"name": name} for name in reversed(names)]},
        "evaluations": [
            {
                "metrics": ["success"],
                "arms": list(reversed(arms)),
                "differences": [{"reference": reference, "other": n} for n in names if n != reference],
            }
        ],
        "curves": [
            {"arm": name, "seed": 0, "env_steps": [0, 10], "seconds": [0, 1], "success": [0, 0.5]}
            for name in names
        ],
    }


def test_few_arms_are_all_drawn_in_the_order_of_the_study():
    assert shown_together(study(MOST_LINES)) == [f"arm{i:02}" for i in reversed(range(MOST_LINES))]
    assert "best of" not in together(study(MOST_LINES), "env_steps").note


def test_of_many_arms_the_reference_and_the_best_are_drawn():
    data = study(33)
    assert shown_together(data) == [*(f"arm{i:02}" for i in range(MOST_LINES - 1)), "arm31"]
    figure = together(data, "env_steps")
    assert "The references and the best of 33 arms." in figure.note


def test_the_ranking_has_every_arm_with_a_result_and_its_difference_to_the_first_reference():
    def spread(a, b, interval=None):
        return {"mean": (a + b) / 2, "t": interval, "by_seed": {"0": a, "1": b}}

    arms = [
        {"name": "gone", "success": {"mean": None, "t": None, "by_seed": {}}},
        {"name": "a $b", "success": spread(0.1, 0.3, [-1.07, 1.47])},
        {"name": "ours", "success": spread(0.5, 0.7)},
    ]
    difference = {"other": "a $b", "metric": "success", **spread(0.4, 0.4, [0.4, 0.4])}
    pairs = [
        {"reference": "ours", **difference, "metric": "score", "mean": 9.0},
        {"reference": "ours", **difference},
        # the first one in the order of success, but of another reference
        {"reference": "a $b", **difference, "other": "ours", "mean": 8.0},
    ]
    data = {"evaluations": [{"metrics": ["success", "score"], "arms": arms, "differences": pairs}]}
    assert ranked_arms(data) == (
        [
            Ranked("ours", Spread(0.6, None, [0.5, 0.7]), None),
            Ranked("a $b", Spread(0.2, [-1.07, 1.47], [0.1, 0.3]), Spread(0.4, [0.4, 0.4], [0.4, 0.4])),
        ],
        "ours",
    )
    files = ranking(data)
    assert files["svg"].startswith(b"<?xml")
    assert files["png"].startswith(b"\x89PNG")
    assert ranking({"evaluations": [{"metrics": ["success"], "arms": arms[:1], "differences": []}]}) == {}


def test_one_validation_is_a_point_with_a_bar():
    """A line and a band of one point have no extent: the axes were empty."""

    def coloured(rows):
        one = band("arm", [1000.0], np.array(rows), PALETTE[1])
        other = band("other", [1000.0, 9000.0], np.array([[0.2, 0.8]]), PALETTE[0])
        image = imread(io.BytesIO(small_multiples([one, other], other, "title")["png"]))[..., :3]
        red, green, blue = (int(PALETTE[1][i : i + 2], 16) / 255 for i in (1, 3, 5))
        return int((np.abs(image - [red, green, blue]).max(axis=-1) < 0.1).sum())

    point = coloured([[0.4]])
    assert point > 10
    assert coloured([[0.3], [0.4], [0.5]]) > 1.5 * point, "three seeds: its interval too"
