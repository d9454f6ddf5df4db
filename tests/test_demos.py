"""Demonstrations: who plays them, who labels them, and what is on disk."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from repro_rl import make
from repro_rl.demos import ANNOTATORS, collect_demos, load_demos, register_annotator, save_demos
from repro_rl.demos.annotators import annotate
from repro_rl.demos.collect import play, summary
from repro_rl.errors import DataError, UnknownNameError
from repro_rl.rollout import trajectory_record
from repro_rl.types import Completion, Step, Trajectory

NOTHING = Completion((), (), np.zeros(0, np.float32), "", True)


@pytest.fixture(scope="module")
def env():
    return make("sokoban", train_rooms=12, validation_rooms=2, test_rooms=2, solution=(2, 6))


def collect(env, **more):
    counts = {"expert": 8, "winning": 5, "failing": 7}
    settings = counts | {"noise": (0.5, 1.0), "annotator": "oracle", "seed": 0} | more
    return collect_demos(env, env.panel("train").ids, **settings)


def records(demos):
    return [trajectory_record(t, 0) for part in demos for t in part]


def episode(truth, won):
    steps = [
        Step(t, "o", "b", "a", "", NOTHING, "up", None, (), True, 0.0, value)
        for t, value in enumerate(truth, 1)
    ]
    return Trajectory("task", 0, "goal", steps, won, float(won), not won)


# Collecting ---------------------------------------------------------------------------------------


def test_experts_win_and_the_others_are_as_asked(env):
    experts, labelled = collect(env)
    assert len(experts) == 8
    assert all(t.won and t.score == 1 and not t.truncated for t in experts)
    assert len({t.task_id for t in experts}) == 8  # without replacement
    assert sum(t.won for t in labelled) == 5
    assert sum(not t.won for t in labelled) == 7
    assert all(t.truncated and len(t.steps) == env.max_steps for t in labelled if not t.won)
    for trajectory in (*experts, *labelled):
        env.reset(options={"task": trajectory.task_id})
        for step in trajectory.steps:  # the recorded actions replay to the recorded states
            observation, reward, _, _, info = env.step(step.action)
            assert (observation, reward, info["progress"]) == (step.feedback, step.env_reward, step.truth)
        assert info["won"] == trajectory.won
        values = trajectory.reflection.values
        assert [s.online for s in trajectory.steps] == list(values)
        assert (values[-1] == 100) == trajectory.won
    assert summary(experts)["episodes"] == summary(experts)["won"] == summary(experts)["tasks"] == 8
    assert summary(labelled)["steps"] == sum(len(t.steps) for t in labelled)


def test_experts_take_a_shortest_path(env):
    experts, _ = collect(env, winning=0, failing=0)
    for trajectory in experts:
        count = len(trajectory.steps)
        assert [s.truth for s in trajectory.steps] == pytest.approx([t / count for t in range(1, count + 1)])


def test_more_experts_than_tasks(env):
    experts, _ = collect(env, expert=30, winning=0, failing=0)
    tasks = [t.task_id for t in experts]
    assert set(tasks[:12]) == set(env.panel("train").ids)
    assert tasks[12:24] == tasks[:12]


def test_seed_decides(env):
    first = records(collect(env))
    assert first == records(collect(env))
    assert first != records(collect(env, seed=1))
    assert records(collect(env, annotator="random")) == records(collect(env, annotator="random"))


def test_progress_bar_hears_of_each(env):
    heard = []
    collect(env, on_done=heard.append)
    assert sum(heard) == 20


def test_what_cannot_be_had(env):
    with pytest.raises(DataError, match=r"failing episodes could not be had.*demos\.noise"):
        collect(env, expert=0, winning=0, failing=1, noise=(0.0,))
    with pytest.raises(UnknownNameError, match="did you mean 'oracle'"):
        collect(env, annotator="oracel")


def test_an_expert_that_fails_is_named(env):
    class Lazy(type(env)):
        def expert(self):
            return "nothing"

    lazy = Lazy(train_rooms=2, validation_rooms=1, test_rooms=1)
    with pytest.raises(DataError, match=r"the expert solves 0 of 11 tasks; run 'repro-rl doctor'"):
        collect(lazy, expert=1, winning=0, failing=0)


def test_noise_is_the_share_of_random_actions(env):
    rng = np.random.default_rng(0)
    task = env.panel("train").ids[0]
    assert play(env, task, 0.0, rng).won
    texts = {tuple(s.action for s in play(env, task, 1.0, rng).steps) for _ in range(10)}
    assert len(texts) > 5


# Annotators ---------------------------------------------------------------------------------------


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
    if "wild" not in ANNOTATORS.names():
        register_annotator("wild")(lambda trajectory, rng: [-5, 150.7, 100])
    rng = np.random.default_rng(0)
    assert annotate(episode([0.0] * 3, False), "wild", rng) == (0, 99, 99)
    assert annotate(episode([0.0] * 3, True), "wild", rng) == (0, 100, 100)
    with pytest.raises(DataError, match="'wild' gave 3 values for 2 steps"):
        annotate(episode([0.0] * 2, True), "wild", rng)


# On disk ------------------------------------------------------------------------------------------


def test_round_trip(env, tmp_path):
    experts, labelled = collect(env)
    save_demos(tmp_path, experts, labelled)
    assert records(load_demos(tmp_path)) == records((experts, labelled))
    again = tmp_path / "again"
    save_demos(again, *load_demos(tmp_path))
    for name in ("expert.jsonl.gz", "labelled.jsonl.gz"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_missing_files(env, tmp_path):
    with pytest.raises(DataError, match=r"expert\.jsonl\.gz: no such file; make it with 'repro-rl demos'"):
        load_demos(tmp_path)
    save_demos(tmp_path, [], [])
    assert load_demos(tmp_path) == ([], [])
    (tmp_path / "labelled.jsonl.gz").unlink()
    with pytest.raises(DataError, match=r"labelled\.jsonl\.gz: no such file"):
        load_demos(tmp_path)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.pop("won"), "won"),
        (lambda r: r["steps"][1].pop("truth"), "truth"),
        (lambda r: r.update(steps=None), "not iterable"),
        (lambda r: r.update(reflection="yes"), "indices"),
        (lambda r: r["reflection"].pop("values"), "values"),
    ],
)
def test_broken_fields_are_named(env, tmp_path, change, field):
    experts, labelled = collect(env, expert=3, winning=0, failing=0)
    save_demos(tmp_path, experts, labelled)
    rows = [trajectory_record(t, 0) for t in experts]
    change(rows[2])
    path = tmp_path / "expert.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    with pytest.raises(DataError, match=r"expert\.jsonl\.gz, record line 3") as caught:
        load_demos(tmp_path)
    assert field in str(caught.value)
