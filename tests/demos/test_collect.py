"""Collecting demonstrations: experts win, the noisy ones as asked, and a seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from repro_rl import make
from repro_rl.config import DemosSection
from repro_rl.demos import CollectHooks, collect_demos
from repro_rl.demos.collect import play, summary
from repro_rl.errors import ConfigError, DataError, UnknownNameError
from repro_rl.files import UnfinishedRows, key_of
from repro_rl.types import Status
from support.demos import collect, records


@pytest.fixture(scope="module")
def env():
    return make("sokoban", train_rooms=12, validation_rooms=2, test_rooms=2, solution=(2, 6))


def test_experts_win_and_the_others_are_as_asked(env):
    experts, labelled = collect(env)
    assert len(experts) == 8
    assert all(t.won and t.score == 1 and t.status is Status.TERMINATED for t in experts)
    assert len({t.task_id for t in experts}) == 8  # without replacement
    assert sum(t.won for t in labelled) == 5
    assert sum(not t.won for t in labelled) == 7
    assert all(t.status is Status.TRUNCATED and len(t.steps) == env.max_steps for t in labelled if not t.won)
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


def test_each_played_episode_is_counted(env):
    counts = []
    collect(env, hooks=CollectHooks(on_done=counts.append))
    assert sum(counts) == 20


def test_what_cannot_be_played(env):
    with pytest.raises(DataError, match=r"failing episodes could not be played.*demos\.labelled_mistakes"):
        collect(env, expert=0, winning=0, failing=1, labelled_mistakes=(0.0,))
    with pytest.raises(UnknownNameError, match="did you mean 'oracle'"):
        collect(env, annotator="oracel")
    with pytest.raises(DataError, match="There are no tasks to demonstrate"):
        collect_demos(env, [], DemosSection(), seed=0)


def test_an_environment_that_lists_no_action_is_named(env):
    """Nothing to draw mistakes from: not the noise is to be changed."""

    class Unlisted(type(env)):
        def _info(self, valid, brief):
            return {**super()._info(valid, brief), "admissible": []}

    unlisted = Unlisted(train_rooms=2, validation_rooms=1, test_rooms=1, solution=(2, 3))
    one = {"expert": 0, "winning": 0, "failing": 1, "agent": "reader", "labelled_mistakes": (0.2,)}
    with pytest.raises(DataError, match=r"0 winning and 1 failing .*info\['admissible'\] of the environment"):
        collect(unlisted, **one)


def test_the_oracle_needs_an_environment_that_tells_progress(env):
    class Unknown(type(env)):
        steps = 0
        known_after = None

        def step(self, action):
            self.steps += 1
            return super().step(action)

        def _progress(self):
            return None if self.known_after is None or self._steps < self.known_after else super()._progress()

    unknown = Unknown(train_rooms=4, validation_rooms=1, test_rooms=1, solution=(2, 3))
    with pytest.raises(
        ConfigError, match=r"demos.annotator is 'oracle', .* environment 'sokoban' gives none"
    ):
        collect(unknown)
    assert unknown.steps == 4, "one step of each task, and no episode"
    experts, _ = collect(unknown, annotator="linear", expert=1, winning=0, failing=0)
    assert len(experts) == 1
    unknown.known_after = 1  # unknown at the reset alone: what is read is the progress after steps
    collect(unknown, expert=1, winning=0, failing=0)


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


@pytest.mark.parametrize(
    "more",
    [
        {"labelled_mistakes": (0.4, 0.8)},  # episodes drawn from one generator, whose state is kept
        {"agent": "reader", "mistakes": (0.0, 0.3), "wandering": 0.5, "annotator": "random"},
    ],
)
def test_a_collection_that_was_stopped_goes_on(env, tmp_path, more):
    key = key_of(list(more))
    whole = records(collect(env, **more))
    for number in (3, 4, 9):
        played = iter(range(1, number))  # the next one after these is interrupted

        def stop(count, played=played):
            if next(played, None) is None:
                raise KeyboardInterrupt

        unfinished = UnfinishedRows(tmp_path / "unfinished.jsonl", key)
        with pytest.raises(KeyboardInterrupt):
            collect(env, hooks=CollectHooks(on_done=stop, unfinished=unfinished), **more)
        # A kill leaves half a row.
        with open(unfinished.path, "a") as handle:
            handle.write('{"key": "')
    assert len(unfinished.rows()) >= 9
    counts, resumed = [], []
    unfinished = UnfinishedRows(tmp_path / "unfinished.jsonl", key)
    kept = sum(row["kind"] != "unsolved" for row in unfinished.rows())
    hooks = CollectHooks(on_done=counts.append, on_resumed=resumed.append, unfinished=unfinished)
    assert records(collect(env, hooks=hooks, **more)) == whole
    assert sum(counts) == len(whole)
    assert resumed == [kept]
    anew = CollectHooks(on_resumed=resumed.append, unfinished=UnfinishedRows(tmp_path / "new.jsonl", key))
    collect(env, hooks=anew, **more)
    assert resumed == [kept]


def test_rows_of_a_collection_that_were_changed_are_named(env, tmp_path):
    unfinished = UnfinishedRows(tmp_path / "unfinished.jsonl", "k")
    unfinished.add({"kind": "expert", "tasks": 1})
    with pytest.raises(DataError, match=r"unfinished\.jsonl.*delete it"):
        collect(env, hooks=CollectHooks(unfinished=unfinished))
