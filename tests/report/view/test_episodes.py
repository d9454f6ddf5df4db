"""The summary of an episode."""

from __future__ import annotations

from repro_rl.report.view.episodes import last_value, task_type, unpack
from support.view import (
    record,
    summary,
)


def test_summary_by_hand():
    value = record(online=(10, None, 95), values=(30, 50, 60), truth=(0.25, 0.5, 0.2))
    value["steps"][1] |= {"valid": False, "defects": ["no_progress", "cut_off"]}
    value["reflection"]["defects"] = ["odd"]
    episode = summary(value)
    assert episode.believed == (95, 3)
    assert episode.gap == (35, 3)  # 20, -, 35
    assert episode.online_error == (75, 3)  # 15, -, 75
    assert episode.retrospective_error == (40, 3)  # 5, 0, 40
    assert unpack(episode.online) == [10, None, 95]
    assert last_value(episode.truth) == 20
    assert (episode.outcome, episode.reflection, episode.invalid, episode.malformed) == (
        "lost",
        "valid",
        1,
        1,
    )
    assert episode.defects == ("no_progress", "cut_off", "reflection: odd")
    assert summary(record(values=(0, 100), truth=(0, 1), online=(100, 0))).gap == (100, 1)  # the earliest


def test_a_reflection_is_valid_broken_or_absent():
    assert summary(record(values=(1,))).reflection == "broken"  # one value for two steps
    assert summary(record(values=None)).reflection == "broken"
    assert summary(record(reflection=None)).reflection == "none"
    assert summary(record(error="the server is gone", won=True)).outcome == "error"


def test_task_types():
    game = "train/pick_two_obj_and_place-Book-None-Desk-312/trial_T2019"
    assert task_type({}, game) == "pick_two_obj_and_place"
    assert task_type({}, "B07XYZ1234/human/3") == "human"
    assert task_type({}, "gen-6x6-seed0/train/2185") == "gen-6x6-seed0/train"
    assert task_type({}, "17") == ""
    assert task_type({"task_type": "cool"}, game) == "cool"
