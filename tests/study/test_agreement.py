"""Signs of gains against signs of advantages, by hand."""

import pytest

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.study.agreement import agreement, references
from repro_rl.study.recorded import EpisodeSet, RunSettings
from support.progress_records import (
    episodes,
    record,
    sampler,
    trained,
)

TWO_ROLLOUTS = [  # one task: won in two steps, and lost; both begin in the state s
    record(True, [None, None], [0.5, 1.0], [40, 100], anchors=["s", "x"], task="p", rollout=0),
    record(False, [None, None], [0.0, 0.0], [10, 10], anchors=["s", "y"], task="p", rollout=1),
]


def test_outcome_advantages_by_hand():
    found = references(episodes(*TWO_ROLLOUTS), 0.5)
    # return-to-go in s: .5 * 10 and 0, mean 2.5; x and y were seen once
    assert found["outcome"] == [[pytest.approx(2.5), 0.0], [pytest.approx(-2.5), 0.0]]
    assert found["truth"] == [[0.5, 0.5], [0.0, 0.0]]
    assert found["trained"] == found["composite"] == [[None, None], [None, None]]  # not trained on
    assert references(episodes(TWO_ROLLOUTS[0]), 0.5)["outcome"] == [[None, None]]  # nobody to compare with


def test_agreement_by_hand():
    rows = episodes(*TWO_ROLLOUTS)
    found = references(rows, 0.5)
    # gains 40 60 and 10 0 against + 0 and - 0: one agrees, one does not, one stands still, one has no sign
    value = agreement(rows, "retrospective", found["outcome"], sampler(rows))
    assert [value[key] for key in ("steps", "flat", "silent", "compared", "agree")] == [4, 1, 1, 2, 1]
    assert value["share"]["value"] == 0.5
    assert value["chance"] == pytest.approx(0.5)  # all gains +, half of the advantages
    assert value["kappa"]["value"] == pytest.approx(0.0)
    # against the truth's gains + + and 0 0
    value = agreement(rows, "retrospective", found["truth"], sampler(rows))
    assert [value[key] for key in ("flat", "silent", "compared", "agree")] == [1, 1, 2, 2]
    assert value["kappa"]["value"] is None  # only + on both sides: nothing beyond chance can be shown
    value = agreement(rows, "retrospective", found["truth"], sampler(rows), before_end=True)
    assert (value["steps"], value["compared"], value["silent"]) == (2, 1, 1)
    assert agreement(rows, "online", found["truth"], sampler(rows)) is None


def test_recorded_training_gives_back_its_step_advantages():
    training = EpisodeSet("run", "training", [], RunSettings("repro", "0", gamma=0.5, group_size=2))
    rows = episodes(*trained(), episode_set=training)
    assert [row.group for row in rows] == ["3/p/0", "3/p/0", "3/p/1", "3/p/1"]
    found = references(rows, 0.5)
    # composite in s: 4 + .5 (10 + 6) = 12 and 7 - .5 * 6 = 4, then 3 - .5 and 2 + .5
    assert [row[0] for row in found["composite"]] == pytest.approx([4.0, -4.0, 0.0, 0.0])
    assert [row[0] for row in found["outcome"]] == pytest.approx([2.5, -2.5, 0.0, 0.0])
    episode_part = [row.advantage for row in episodes(*trained(omega=0.0), episode_set=training)]
    for all_of_it, part, step in zip(found["trained"], episode_part, found["composite"], strict=True):
        assert all_of_it == pytest.approx([a + b for a, b in zip(part, step, strict=True)])
    # without the group's size both groups are one: returns in s 5 0 0 0
    one = references(
        episodes(*trained(), episode_set=EpisodeSet("run", "training", [], RunSettings("repro", "0"))), 0.5
    )
    assert [row[0] for row in one["outcome"]] == pytest.approx([3.75, -1.25, -1.25, -1.25])
