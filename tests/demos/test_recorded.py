"""Recorded training episodes become labelled ones, and never those of tasks that may be held out."""

from __future__ import annotations

import pytest

from repro_rl import make
from repro_rl.config import DemosSection
from repro_rl.demos import collect_demos
from repro_rl.errors import DataError
from repro_rl.rollout.record import write_trajectories
from repro_rl.types import Reflection, Status, no_completion
from support.demos import collect


@pytest.fixture(scope="module")
def env():
    return make("sokoban", train_rooms=12, validation_rooms=2, test_rooms=2, solution=(2, 6))


def record(folder, episodes, name="iteration-00001"):
    (folder / "trajectories").mkdir(parents=True, exist_ok=True)
    write_trajectories(folder / "trajectories" / f"{name}.jsonl.gz", episodes, iteration=1)


def test_the_oracle_labels_what_a_run_recorded(env, tmp_path):
    _, episodes = collect(env, expert=0, winning=3, failing=4)
    for episode in episodes:  # a judge that says 1 everywhere, and an agent that says 7
        episode.reflection = Reflection("", no_completion(), (1,) * episode.length, ())
        for step in episode.steps:
            step.online = 7
    episodes[2].error, episodes[2].status = "RuntimeError: the environment broke", Status.FAILED
    record(tmp_path, episodes[:3])
    record(tmp_path, episodes[3:], "iteration-00002")
    record(tmp_path, episodes, "eval-last")  # held-out tasks in a real run: not read
    section = DemosSection(expert=2, wandering=0, winning=1, failing=1, recorded=(str(tmp_path),))
    experts, labelled = collect_demos(env, env.panel("train").ids, section, seed=0)
    assert len(experts) == 2
    added = labelled[2:]
    kept = [*episodes[:2], *episodes[3:]]
    assert [t.task_id for t in added] == [t.task_id for t in kept]
    assert [[s.action for s in t.steps] for t in added] == [[s.action for s in t.steps] for t in kept]
    for episode in added:
        truth = [round(100 * step.truth) for step in episode.steps]
        truth[-1] = 100 if episode.won else min(truth[-1], 99)
        assert list(episode.reflection.values) == [s.online for s in episode.steps] == truth


def test_a_run_without_episodes_and_a_held_out_task_are_refused(env, tmp_path):
    def attempt():
        section = DemosSection(expert=0, winning=0, failing=0, recorded=(str(tmp_path),))
        collect_demos(env, env.panel("train").ids, section, seed=0)

    with pytest.raises(DataError, match=r"record_every=1"):
        attempt()
    _, episodes = collect(env, expert=0, winning=1, failing=1)
    episodes[1].task_id = env.panel("test").ids[0]
    record(tmp_path, episodes)
    with pytest.raises(DataError, match=r"may be held out") as caught:
        attempt()
    assert episodes[1].task_id in str(caught.value)
