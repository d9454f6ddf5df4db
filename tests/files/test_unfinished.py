"""Rows of work that is under way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from repro_rl.errors import DataError
from repro_rl.files import UnfinishedRows, append_line, json_data, key_of, unfinished


def test_rows_are_read_again_by_the_same_work_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "unfinished.jsonl"
    one, other = UnfinishedRows(path, key_of({"lr": 1})), UnfinishedRows(path, key_of({"lr": 2}))
    assert one.rows() == []
    one.add({"text": "ä"})
    other.add({"n": 1})
    one.add({"n": 2})
    assert UnfinishedRows(path, key_of({"lr": 1})).rows() == [{"text": "ä"}, {"n": 2}]
    assert other.rows() == [{"n": 1}]
    one.remove()
    assert not path.exists()


def test_half_a_row_is_no_row_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.jsonl"
    rows = UnfinishedRows(path, "k")
    rows.add({"n": 1})
    rows.close()
    with open(path, "ab") as handle:
        handle.write(b'{"key": "k", "n": "\xc3')  # killed in the middle of a character
    again = UnfinishedRows(path, "k")
    again.add({"n": 2})
    assert again.rows() == [{"n": 1}, {"n": 2}]


def test_a_folder_that_cannot_be_written_is_noticed_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match=r"/file'$"):
        UnfinishedRows(tmp_path / "file" / "unfinished.jsonl", "k").open()
    rows = UnfinishedRows(tmp_path / "unfinished.jsonl", "k")
    rows.open()
    rows.close()
    assert not rows.path.exists()


def test_a_row_that_does_not_fit_is_not_half_there(tmp_path: Path) -> None:
    """A limit on the file's size is a full disk that anybody can have."""
    import resource

    rows = UnfinishedRows(tmp_path / "unfinished.jsonl", "k")
    rows.add({"n": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:
        with pytest.raises(OSError, match=r"unfinished\.jsonl") as caught:
            rows.add({"text": "x" * 1000})
        assert caught.value.errno == errno.EFBIG
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            append_line(tmp_path / "metrics.jsonl", "x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert rows.rows() == [{"n": 1}]
    append_line(tmp_path / "metrics.jsonl", "whole")
    assert (tmp_path / "metrics.jsonl").read_bytes().splitlines()[-1] == b"whole"
    assert os.path.getsize(rows.path) < 50


def test_a_file_beyond_the_limits_is_refused_and_a_row_beyond_them_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = UnfinishedRows(tmp_path / "unfinished.jsonl", "k")
    rows.add({"n": 2**100})  # as the state of a random generator
    rows.close()
    with open(rows.path, "ab") as handle:
        handle.write(b'{"key": "k", "n": [' + b"[]," * 600 + b"1]}\n" + b"[" * 100_000 + b"\n")
    monkeypatch.setattr(json_data, "MAX_VALUES", 1000)
    assert rows.rows() == [{"n": 2**100}]
    with open(rows.path, "ab") as handle:
        handle.truncate((32 << 20) + 200_000)  # zeros that take no room on the disk
    with pytest.raises(DataError, match=r"unfinished\.jsonl: holds a line larger than the limit"):
        rows.rows()


def test_a_file_of_lines_that_are_not_json_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kill leaves half a line at most."""
    monkeypatch.setattr(unfinished, "MAX_UNREADABLE", 3)
    rows = UnfinishedRows(tmp_path / "unfinished.jsonl", "k")
    rows.path.write_bytes(b"x\n" * 3)
    assert rows.rows() == []
    rows.path.write_bytes(b"x\n" * 4)
    with pytest.raises(DataError, match=r"unfinished\.jsonl: holds more than 3 lines that are not JSON"):
        rows.rows()
