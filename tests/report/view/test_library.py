"""The trajectory files of runs: found, indexed, read, changed, broken."""

from __future__ import annotations

import gzip
import json
import os
import re

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.errors import DataError
from repro_rl.files import lines
from repro_rl.report.view.library import Library
from repro_rl.report.view.pages import episode_page, list_page
from repro_rl.report.view.query import Query, Search
from support.view import (
    IT,
    loaded,
    record,
    trajectory_file,
    write_records,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)

STEP = st.fixed_dictionaries({}, optional=dict.fromkeys(record()["steps"][0], JSON)) | JSON

ANY = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(record(), JSON) | {"steps": st.lists(STEP, max_size=3) | JSON}
)


@settings(max_examples=60, deadline=None)
@given(value=ANY | JSON)
def test_any_json_line_is_listed_and_shown_or_left_out_with_a_note(tmp_path_factory, value):
    run = tmp_path_factory.mktemp("any")
    write_records(trajectory_file(run), [value, record()])
    library = loaded(run)
    count = len(library.files[0].episodes)
    assert count == 2 - len(library.files[0].notes)
    for episode in library.files[0].episodes:
        episode_page(library, library.files[0].key(episode))
    assert len(list_page(library, Search(), Query(text="room"), 0, "", 60)["rows"]) >= 1


def test_an_object_that_is_no_episode_is_left_out_with_a_note(tmp_path):
    write_records(trajectory_file(tmp_path), [{"a": 1}, record(), {"task_id": "x", "won": True}])
    (file,) = loaded(tmp_path).files
    assert [episode.line for episode in file.episodes] == [2]
    assert file.notes == [f"line {n} is no episode, as it has no steps, and was left out." for n in (1, 3)]


def test_records_are_read_at_their_offset(tmp_path):
    write_records(trajectory_file(tmp_path), [record(goal=f"Goal {n} – é") for n in range(40)])
    library = loaded(tmp_path)
    assert library.read("0/iteration-00001/33")[2]["goal"] == "Goal 32 – é"
    for key in (f"0/{IT}/41", f"1/{IT}/1", f"0/{IT}/-1", "0/../config/1", "x", ""):
        with pytest.raises(DataError, match="no such episode"):
            library.read(key)


def test_new_changed_and_removed_files_are_noticed(tmp_path):
    first = write_records(trajectory_file(tmp_path), [record()])
    library = loaded(tmp_path)
    write_records(trajectory_file(tmp_path, "iteration-00010"), [record()])
    write_records(trajectory_file(tmp_path, "iteration-00009"), [record()])
    write_records(trajectory_file(tmp_path, "eval-best"), [record(), record()])
    library.refresh(60)
    assert [file.name for file in library.files] == [
        "iteration 1", "iteration 9", "iteration 10", "eval best",
    ]  # fmt: skip
    write_records(first, [record(goal="another"), record(goal="and one more")])
    assert library.read("0/iteration-00001/1")[2]["goal"] == "another"  # even before the next look
    version = library.version
    first.unlink()
    library.refresh(60)
    assert len(library.files) == 3
    assert library.version > version


def test_a_short_look_indexes_one_file_at_a_time(tmp_path):
    for number in range(3):
        write_records(trajectory_file(tmp_path, f"iteration-{number:05d}"), [record()])
    library = Library([tmp_path])
    seen = []
    for _ in range(3):
        library.refresh(0)
        seen.append(library.waiting)
    assert seen == [2, 1, 0]


def test_a_half_written_file_gives_what_is_before_the_break_and_a_note(tmp_path):
    lines = [record(goal=os.urandom(2000).hex()) for _ in range(50)]
    file = write_records(trajectory_file(tmp_path), lines)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    library = loaded(tmp_path)
    count = len(library.files[0].episodes)
    assert 5 < count < 45
    assert f"broken after line {count}" in library.notes[0]
    assert str(file) in library.notes[0]
    assert library.read(f"0/iteration-00001/{count}")[2]["goal"] == lines[count - 1]["goal"]
    file.write_bytes(b"")
    write_records(trajectory_file(tmp_path, "iteration-00002"), [record()])
    library.refresh(60)
    assert sum(len(file.episodes) for file in library.files) == 1
    trajectory_file(tmp_path, "iteration-00003").write_bytes(b"no gzip at all")
    library.refresh(60)
    assert any("iteration-00003" in note for note in library.notes)


def test_lines_that_are_no_records_are_left_out_by_number(tmp_path):
    with gzip.open(write_records(trajectory_file(tmp_path), []), "wt") as out:
        out.write("nope\n\n[1]\n" + json.dumps(record()) + "\n" + "[" * 100_000 + "\n")
    library = loaded(tmp_path)
    assert [episode.line for episode in library.files[0].episodes] == [4]
    for line, note in zip((1, 3, 5), library.notes[-3:], strict=True):
        assert f": line {line} " in note
        assert "left out" in note
    assert library.read("0/iteration-00001/4")[2]["goal"] == "Leave."


def test_links_out_of_the_run_and_what_is_no_file_are_not_opened(tmp_path):
    outside = write_records(tmp_path / "outside.jsonl.gz", [record()])
    run = tmp_path / "run"
    write_records(trajectory_file(run), [record()])
    trajectory_file(run, "iteration-00002").symlink_to(outside)
    os.mkfifo(trajectory_file(run, "iteration-00003"))
    library = loaded(run)
    assert [file.name for file in library.files] == ["iteration 1"]
    assert any("iteration-00002" in note and "leads out" in note for note in library.notes)


def test_what_is_no_run_is_refused_with_a_hint(tmp_path):
    with pytest.raises(DataError, match="No such run folder"):
        Library([tmp_path / "nowhere"])
    write_records(trajectory_file(tmp_path / "demo" / "train"), [record()])
    with pytest.raises(DataError, match=r"did you mean .*demo/train"):
        Library([tmp_path / "demo"])
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.yaml").write_text("seed: 1\n")
    assert loaded(tmp_path / "young").files == []  # training has begun, nothing is recorded yet
    write_records(tmp_path / "demos" / "expert.jsonl.gz", [record()])
    assert [file.name for file in loaded(tmp_path / "demos").files] == ["expert"]


def test_many_bad_lines_give_a_few_notes_and_the_reason_why_no_more_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_UNPACKED", 2 << 20)
    file = write_records(trajectory_file(tmp_path), [])
    good = json.dumps(record()).encode() + b"\n"
    file.write_bytes(gzip.compress(good) + gzip.compress(b"nope\n[1]\n" * 200_000))
    library = loaded(tmp_path)
    assert len(library.files[0].episodes) == 1
    notes = library.files[0].notes
    assert len(notes) == 7
    assert [f"line {number} " in note for number, note in enumerate(notes[:5], 2)] == [True] * 5
    assert re.fullmatch(r"\d{3,5} more lines were left out\.", notes[5])
    assert int(notes[5].split()[0]) < 100_000  # of 400,000
    assert re.match(r"broken after line \d+ \(.*would take over 2 MiB of memory", notes[6])
    assert notes[6].endswith("; the 1 episodes before it are shown.")
    assert all(str(file) in note for note in library.notes[-7:])


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (b" " * 100_000, "a line larger than the limit of 1,048,576 bytes"),
        (b"\n" * 100_000, "more than 1,000 blank lines one after another"),
        (b"{}\n" * 100_000, "would take over 8 MiB of memory"),
        (b"[" + b"[]," * 100_000, "a line larger than the limit of 1,048,576 bytes"),
    ],
    ids=["no end", "blank lines", "empty objects", "lists"],
)
def test_a_bomb_is_a_note_that_names_the_file_and_the_limit(tmp_path, monkeypatch, block, reason):
    monkeypatch.setattr(lines, "MAX_TEXT", 1 << 20)
    monkeypatch.setattr(lines, "MAX_UNPACKED", 8 << 20)
    write_records(trajectory_file(tmp_path), [record()])
    bomb = trajectory_file(tmp_path, "eval-last")
    bomb.write_bytes(gzip.compress(block * 40))
    library = loaded(tmp_path)
    (note,) = library.notes[-1:]
    assert note.startswith(f"{bomb}: broken after line ")
    assert reason in note
    assert len(library.files[0].episodes) == 1
