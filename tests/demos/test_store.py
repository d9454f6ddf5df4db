"""Demonstrations on disk: round trips, records of older versions, and broken fields."""

from __future__ import annotations

import gzip
import json

import pytest

from repro_rl import make
from repro_rl.demos import load_demos, save_demos
from repro_rl.demos.store import is_labelled, trajectory_from_record
from repro_rl.errors import DataError
from repro_rl.rollout import trajectory_record
from repro_rl.types import Reflection, Status, no_completion
from support.demos import collect, records
from support.episodes import hand_episode, hand_step


@pytest.fixture(scope="module")
def env():
    return make("sokoban", train_rooms=12, validation_rooms=2, test_rooms=2, solution=(2, 6))


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
        (lambda r: r.update(steps=None), "field steps"),
        (lambda r: r.update(reflection="yes"), "field reflection"),
        (lambda r: r["reflection"].pop("values"), "values"),
        (lambda r: r.update(status="lost"), "field status"),
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


@pytest.mark.parametrize("status", Status)
def test_a_record_and_back(status):
    steps = [
        hand_step(1, anchor="a", reached="b", terms={"env": 1.0}, advantage=0.5, online=30, truth=0.25),
        hand_step(2, anchor="b", reached=None, valid=False, defects=("no_action",), feedback="f"),
    ]
    episode = hand_episode(
        steps,
        won=status is Status.TERMINATED,
        status=status,
        error="server gone" if status is Status.FAILED else None,
        final_observation="end",
        reflection=Reflection("asked", no_completion(), (10, 20), ("text_outside",)),
    )
    again = trajectory_from_record(json.loads(json.dumps(trajectory_record(episode, 4))))
    assert trajectory_record(again, 4) == trajectory_record(episode, 4)
    assert (again.status, again.failed, again.truncated) == (status, episode.failed, episode.truncated)
    assert [step.reached for step in again.steps] == ["b", None]
    assert again.reflection.values == (10, 20)


@pytest.mark.parametrize(
    ("truncated", "context_full", "error", "status"),
    [
        (False, False, None, Status.TERMINATED),
        (True, False, None, Status.TRUNCATED),
        (True, True, None, Status.CONTEXT_FULL),
        (False, False, "server gone", Status.FAILED),
        (True, False, "server gone", Status.FAILED),
        (True, None, None, Status.TRUNCATED),  # before chat mode there was no such field
    ],
)
def test_records_of_older_versions_have_no_status(truncated, context_full, error, status):
    record = trajectory_record(hand_episode([hand_step(1)]), 0)
    del record["status"]
    record.update(truncated=truncated, context_full=context_full, error=error)
    if context_full is None:
        del record["context_full"]
    for step in record["steps"]:
        del step["reached"]  # nor did they keep the state that a step reached
    episode = trajectory_from_record(record)
    assert (episode.status, episode.error) == (status, error)
    assert episode.steps[0].reached is None


def test_what_counts_as_labelled():
    def episode(values, defects):
        reflection = Reflection("", no_completion(), values, defects)
        return hand_episode([hand_step(1)], reflection=reflection)

    assert is_labelled(hand_episode([hand_step(1)]))  # never annotated: not known to lack labels
    assert is_labelled(episode((50,), ()))
    assert is_labelled(episode(None, ()))
    assert not is_labelled(episode(None, ("no_answer",)))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.update(goal=7), "goal"),
        (lambda r: r.update(rollout=-1), "rollout"),
        (lambda r: r.update(score=float("inf")), "Infinity"),
        (lambda r: r["steps"][0].update(observation=None), r"steps\.0\.observation"),
        (lambda r: r["steps"][0].update(online="x"), r"steps\.0\.online"),
        (lambda r: r["steps"][0].update(online=-1), r"steps\.0\.online"),
        (lambda r: r["steps"][0].update(online=101), r"steps\.0\.online"),
        (lambda r: r["steps"][0].update(truth=1.5), r"steps\.0\.truth"),
        (lambda r: r["steps"][0].update(terms=["a"]), r"steps\.0\.terms"),
        (lambda r: r["steps"][0].update(terms={"a": "1"}), r"steps\.0\.terms\.a"),
        (lambda r: r["steps"][0].update(valid="yes"), r"steps\.0\.valid"),
        (lambda r: r["steps"][0].update(env_reward=10**400), "64 bits"),
        (lambda r: r["steps"][0].update(t=2), "field steps: the steps are not numbered"),
        (lambda r: r["steps"].reverse(), "field steps: the steps are not numbered"),
        (lambda r: r["reflection"]["values"].append(3), r"reflection\.values: \d+ values for \d+ steps"),
        (lambda r: r["reflection"].update(values=[101]), r"reflection\.values\.0"),
    ],
)
def test_values_of_wrong_types_and_ranges_are_named(env, tmp_path, change, field):
    experts, labelled = collect(env, expert=2, winning=2, failing=0)
    save_demos(tmp_path, experts, labelled)
    rows = [trajectory_record(t, 0) for t in labelled]
    change(rows[1])
    path = tmp_path / "labelled.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    with pytest.raises(DataError, match=rf"labelled\.jsonl\.gz, record line 2.*{field}"):
        load_demos(tmp_path)


@pytest.mark.parametrize("name", ["expert", "labelled"])
def test_an_empty_file_is_not_a_set_without_episodes(env, tmp_path, name):
    experts, labelled = collect(env, expert=2, winning=2, failing=0)
    save_demos(tmp_path, experts, labelled)
    (tmp_path / f"{name}.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name}\.jsonl\.gz: is empty: not a whole gzip file"):
        load_demos(tmp_path)
