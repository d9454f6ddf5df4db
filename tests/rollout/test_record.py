"""Records: round trips, equal bytes, and broken files."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace

import pytest

from repro_rl.errors import DataError
from repro_rl.rollout import Actor, read_trajectories, reflect, trajectory_record, write_trajectories
from repro_rl.types import Status
from support.episodes import (
    COMPACT,
    SAMPLING,
    hand_episode,
    hand_step,
    values_text,
    won_and_lost,
)
from support.scripted import ScriptedPolicy


def test_records_round_trip_and_equal_bytes(pool, tmp_path):
    won, lost = won_and_lost(pool)
    policy = ScriptedPolicy(lambda prompt, key: values_text(prompt.count(" t")))
    reflect([won], Actor(policy, COMPACT, SAMPLING), instructions="", stream=0, max_prompt_tokens=4096)
    won.steps[0].terms, won.steps[0].advantage = {"env": 0.0, "shaping": 0.1}, -0.5
    write_trajectories(tmp_path / "a.jsonl.gz", [won, lost], 7)
    write_trajectories(tmp_path / "sub" / "b.jsonl.gz", [won, lost], 7)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "sub" / "b.jsonl.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl.gz", "sub"]
    first, second = read_trajectories(tmp_path / "a.jsonl.gz")
    assert first == trajectory_record(won, 7)
    assert second == trajectory_record(lost, 7)
    assert first["iteration"] == 7
    assert first["return"] == 10
    assert first["reflection"]["values"] == list(won.reflection.values)
    assert second["reflection"] is None
    assert first["steps"][0]["terms"] == {"env": 0.0, "shaping": 0.1}
    assert first["steps"][0]["advantage"] == -0.5
    assert first["steps"][0]["tokens"] == 2
    assert second["steps"][0]["defects"] == ["no_action"]
    assert second["steps"][0]["online"] == 10


def test_broken_records_name_file_and_line(tmp_path):
    path = tmp_path / "broken.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"steps": []}\n{"a": \n'))
    lines = read_trajectories(path)
    assert next(lines) == {"steps": []}
    with pytest.raises(DataError, match=r"broken\.jsonl\.gz, record line 2: not JSON"):
        next(lines)
    whole = gzip.compress("".join(f'{{"steps": [], "b": "{i * 7919}"}}\n' for i in range(3000)).encode())
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    for data in (
        b"plain text",
        whole[: len(whole) // 2],
        bytes(damaged),
        gzip.compress(b'{"steps": [], "a": "\xff"}\n'),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"broken\.jsonl\.gz"):
            list(read_trajectories(path))
    with pytest.raises(DataError, match=r"missing\.jsonl\.gz"):
        list(read_trajectories(tmp_path / "missing.jsonl.gz"))
    path.write_bytes(gzip.compress(b""))
    assert list(read_trajectories(path)) == []


@pytest.mark.parametrize("status", Status)
def test_a_record_says_how_the_episode_ended(status):
    error = "server gone" if status is Status.FAILED else None
    record = trajectory_record(hand_episode([hand_step(1)], status=status, error=error), 3)
    assert (record["status"], record["error"]) == (status.value, error)
    # what readers of older versions look at
    assert record["truncated"] is (status in (Status.TRUNCATED, Status.CONTEXT_FULL))
    assert record["context_full"] is (status is Status.CONTEXT_FULL)


def test_keys_of_states_are_written_as_text():
    (step,) = trajectory_record(hand_episode([hand_step(1, anchor=("room", 3), reached=None)]), 0)["steps"]
    assert (step["anchor"], step["reached"]) == ("('room', 3)", None)


@pytest.mark.parametrize("line", ["{}", '{"task": "t"}', '{"won": true, "score": 1.0}', '{"steps": null}'])
def test_an_object_without_steps_is_no_episode(tmp_path, line):
    path = tmp_path / "other.jsonl.gz"
    path.write_bytes(gzip.compress(f"{line}\n".encode()))
    with pytest.raises(DataError, match=r"other\.jsonl\.gz, record line 1.*steps"):
        list(read_trajectories(path))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_null_and_the_episode_can_be_read(pool, tmp_path, value):
    won, _ = won_and_lost(pool)
    won.steps[0].terms, won.steps[0].advantage = {"env": 1.0, "shaping": value}, value
    won.steps[0].completion = replace(won.steps[0].completion, entropy=value)
    write_trajectories(tmp_path / "a.jsonl.gz", [won])
    (record,) = read_trajectories(tmp_path / "a.jsonl.gz")
    step = record["steps"][0]
    assert (step["terms"], step["advantage"], step["entropy"]) == ({"env": 1.0, "shaping": None}, None, None)
    assert "NaN" not in gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode()
