"""One figure of many arms shows the references and the best others."""

from __future__ import annotations

from repro_rl.report.comparison import MOST_LINES, shown_together, together


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
