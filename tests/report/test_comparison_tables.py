"""Tables of a comparison begin with the best arm."""

from __future__ import annotations

from repro_rl.report.comparison_tables import ranked


def arm(name, mean):
    return {"name": name, "success": None if mean is None else {"mean": mean}}


def test_the_best_arm_stands_first_and_arms_without_a_result_last():
    others = [{"reference": "b", "other": name} for name in ("unfinished", "c", "a", "d")]
    arms = [arm("unfinished", None), arm("c", 0.2), arm("a", 0.5), arm("b", 0.3), arm("d", 0.2)]
    block = {"metrics": ["success"], "arms": arms, "differences": others, "panel": "kept"}
    result = ranked(block)
    assert [entry["name"] for entry in result["arms"]] == ["a", "b", "c", "d", "unfinished"]
    assert [entry["other"] for entry in result["differences"]] == ["a", "c", "d", "unfinished"]
    assert result["panel"] == "kept"
    assert block["arms"][0]["name"] == "unfinished"  # the data itself stays as it was
