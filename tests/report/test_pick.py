"""The choice of episodes, and JSON inside a page."""

import json
import random

from repro_rl.report.pick import choose_records, json_for_script
from support.runs import trajectory


def test_json_for_script():
    text = json_for_script({"a": "</script><!--\u2028&\ud800", "b": float("nan"), "c": [float("inf"), 0.5]})
    assert text.isascii()
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"a": "</script><!--[U+2028]&[U+D800]", "b": None, "c": [None, 0.5]}


def test_choice_is_informative():
    rng = random.Random(1)
    records = [trajectory(i, 0.6, rng) for i in range(80)]
    chosen = choose_records(records, 12, random.Random(0))
    assert chosen == choose_records(records, 12, random.Random(0))
    assert len(chosen) == 12
    assert {record["won"] for record in chosen} == {True, False}


def record(won, online, retrospective):
    return {"won": won, "steps": [{"online": online}], "reflection": {"values": [retrospective]}}


def test_a_few_episodes_have_the_loss_believed_done_and_the_largest_gap():
    believed, apart = record(False, 90, 80), record(True, 0, 100)
    others = [record(won, 50, 50) for won in (True, False) * 3]
    records = [*others[:3], believed, *others[3:], apart]
    for seed in range(20):
        chosen = choose_records(records, 4, random.Random(seed))
        assert len(chosen) == 4
        assert believed in chosen
        assert apart in chosen
