"""Tables of a comparison begin with the best arm."""

from __future__ import annotations

from repro_rl.report.comparison import headline
from repro_rl.report.comparison_tables import ranked, tables
from repro_rl.report.text_table import interval_cell


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


def test_the_references_keep_the_order_of_the_study():
    names = ("b", "a", "c")
    interval = {"seeds": [0], "by_seed": {"0": 0.1}, "mean": 0.1, "t": None, "crossed": None}
    tests = {"metric": "success", "p": 1.0, "p_holm": 1.0, "p_smallest": 1.0}
    differences = [
        {"reference": reference, "other": name, **interval, **tests}
        for reference in ("a", "b")
        for name in names
        if name != reference
    ]
    arms = [arm("b", 0.2), arm("a", 0.5), arm("c", 0.1)]
    block = {
        "metrics": ["success"],
        "arms": [{**entry, "by_type": {}, "seeds": []} for entry in arms],
        "differences": differences,
    }
    for entry in block["arms"]:
        entry["progress"] = {"retrospective": {}, "online": {}}
    first, second = tables(block)
    assert [row[0] for row in first.rows] == ["a − b", "a − c"]
    assert [row[0] for row in second.rows] == ["b − a", "b − c"]


def test_every_minus_is_the_same_sign():
    assert interval_cell((-0.0541, 0.1)) == "[−0.054, 0.100]"
    assert interval_cell((-0.0541, 0.1), sign=True) == "[−0.054, +0.100]"


def test_the_first_sentence_names_who_is_ahead():
    def pair(other, *ends):
        return {"reference": "gigpo", "metric": "success", "other": other, "t": ends, "by_seed": {"0": 0.1}}

    arms = [{"name": "gigpo", "success": {"t": (0.1, 0.3), "mean": 0.2}, "seeds": [0, 1]}]
    pairs = [pair("grpo", 0.01, 0.2), pair("repro", -0.3, -0.1), pair("meta", -0.1, 0.1)]
    pairs.append(pair("rloo", 0.1, 0.1))  # the same in both seeds, which is no proof
    (line,) = headline({"evaluations": [{"arms": arms, "differences": pairs}]})
    assert line == (
        "gigpo: success 0.200 [0.100, 0.300] over 2 seeds. Of 4 other arms it is ahead of 1 (grpo), behind 1 "
        "(repro). Elsewhere the difference's 95 % t-interval holds 0."
    )
