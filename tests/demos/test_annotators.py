"""Annotators: their labels by hand, anchored by the outcome, and annotators of the user's own."""

from __future__ import annotations

import numpy as np
import pytest

from repro_rl import make
from repro_rl.demos import ANNOTATORS, AnnotationContext, BatchAnnotator, CollectHooks, register_annotator
from repro_rl.demos.annotators import annotate
from repro_rl.errors import ConfigError, DataError
from repro_rl.types import Reflection
from support.demos import collect
from support.episodes import hand_episode, hand_step


def episode(truth, won):
    return hand_episode([hand_step(t, truth=value) for t, value in enumerate(truth, 1)], won=won)


def test_annotators_by_hand():
    rng = np.random.default_rng(0)
    won, lost = episode([0.25, 0.0, 0.5, 1.0], True), episode([0.333, 0.666, 1.0], False)
    assert annotate(won, "oracle", rng) == (25, 0, 50, 100)
    assert annotate(lost, "oracle", rng) == (33, 67, 99)  # the outcome anchors the end
    assert annotate(won, "linear", rng) == (25, 50, 75, 100)
    assert annotate(lost, "linear", rng) == (0, 0, 0)
    assert annotate(episode([0.0] * 3, True), "linear", rng) == (33, 67, 100)
    assert annotate(won, "constant", rng) == (50, 50, 50, 100)
    assert annotate(lost, "constant", rng) == (50, 50, 50)
    values = annotate(episode([0.0] * 2000, False), "random", rng)
    assert 0 <= min(values) <= 1
    assert 98 <= max(values) <= 99
    assert abs(np.mean(values) - 50) < 5 * 29.2 / np.sqrt(2000)
    assert annotate(episode([0.0] * 5, False), "random", np.random.default_rng(3)) == annotate(
        episode([0.0] * 5, False), "random", np.random.default_rng(3)
    )


def test_oracle_without_truth():
    with pytest.raises(DataError, match="record task, field step 2: no ground-truth"):
        annotate(episode([0.5, None], True), "oracle", np.random.default_rng(0))


def test_annotators_of_ones_own():
    rng = np.random.default_rng(0)
    with ANNOTATORS.isolated():
        register_annotator("wild")(lambda trajectory, rng: [0, 50.0, np.int64(100)])
        assert annotate(episode([0.0] * 3, False), "wild", rng) == (0, 50, 99)
        assert annotate(episode([0.0] * 3, True), "wild", rng) == (0, 50, 100)
        with pytest.raises(DataError, match="'wild' gave 3 values for 2 steps"):
            annotate(episode([0.0] * 2, True), "wild", rng)


@pytest.mark.parametrize("value", [0.5, -1, 101, 150.7, float("nan"), "50", None, True])
def test_a_label_is_a_whole_number_of_percent(value):
    with ANNOTATORS.isolated():
        register_annotator("odd")(lambda trajectory, rng: [10, value])
        with pytest.raises(DataError, match=r"field step 2: annotator 'odd' gave .*whole number of percent"):
            annotate(episode([0.0] * 2, True), "odd", np.random.default_rng(0))


def test_batch_annotators_of_ones_own():
    def halves(trajectories, context):
        assert isinstance(context, AnnotationContext)
        return [
            Reflection("", t.steps[0].completion, (50,) * len(t.steps) if t.won else None, ())
            for t in trajectories
        ]

    env = make("sokoban", train_rooms=6, validation_rooms=1, test_rooms=1, solution=(2, 4))
    counts = {"expert": 2, "winning": 0, "failing": 2, "labelled_mistakes": (1.0,)}
    hooks = CollectHooks()
    with ANNOTATORS.isolated():
        ANNOTATORS.register("halves", BatchAnnotator(halves))
        ANNOTATORS.register("few", BatchAnnotator(lambda trajectories, context: []))
        experts, labelled = collect(env, annotator="halves", hooks=hooks, **counts)
        with pytest.raises(DataError, match="'few' gave 0 labels for 4 episodes"):
            collect(env, annotator="few", **counts)
        ANNOTATORS.register("broken", BatchAnnotator(lambda trajectories, context: trajectories["a"]))
        register_annotator("odd")(lambda trajectory, rng: 1 / 0)
        for name, words in (("broken", "TypeError"), ("odd", "ZeroDivisionError")):
            with pytest.raises(ConfigError, match=f"The annotator '{name}' failed: {words}"):
                collect(env, annotator=name, **counts)
        with pytest.raises(ConfigError, match="labels all episodes at once; call annotate_all"):
            annotate(experts[0], "halves", None)
    assert all(t.reflection.values[-1] == 100 for t in experts)
    assert [t.reflection.defects for t in labelled] == [("unlabelled",)] * 2
    assert hooks.notes["defects"] == {"unlabelled": 2}
    with pytest.raises(ConfigError, match=r"needs the settings api\.base_url and api\.model"):
        collect(env, annotator="http", **counts)
