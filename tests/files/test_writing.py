"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from repro_rl.errors import DataError
from repro_rl.files import (
    naming,
    read_json,
    read_json_if_any,
    replacing,
    sweep_temporaries,
    whole_rows,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "ä")
    assert path.read_bytes() == "ä".encode()
    write_bytes(path, b"b")
    assert (path.read_bytes(), names(path.parent)) == (b"b", ["file.txt"])


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fails() -> None:
        with replacing(path) as handle:
            handle.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert (path.read_text(), names(tmp_path)) == ("old", ["file"])


def test_json_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"word": "ä", "x": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "word": "ä",\n  "x": 1\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, float("nan"))
    assert "ä" in path.read_text(encoding="utf-8")


def test_a_folder_is_replaced_in_one_step(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, lambda new: (new / "a").write_text("1"))
    write_folder(folder, lambda new: (new / "b").write_text("2"))
    assert (names(folder), names(tmp_path)) == (["b"], ["model"])

    def fails(new: Path) -> None:
        (new / "c").write_text("3")
        raise KeyError

    with pytest.raises(KeyError):
        write_folder(folder, fails)
    assert names(folder) == ["b"]
    write_folder(folder, lambda new: (new / "d").write_text("4"))
    assert (names(folder), names(tmp_path)) == (["d"], ["model"])


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".file.123.tmp").write_text("half")
    (tmp_path / ".folder.123.tmp").mkdir()
    (tmp_path / ".folder.123.tmp" / "a").write_text("half")
    (tmp_path / "kept.tmp").write_text("whole")
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == ["kept.tmp"]
    sweep_temporaries(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no study .*No such file"),
        (b"{", "no study .*Expecting"),
        (b"[1]", "a JSON object was expected, not a list"),
        (b'{"a": [1]}', "'a' is missing or of another type.*; delete it"),
        (b"{}", "'a' is missing"),
        (b'{"a": "\xff"}', "byte 0xff at offset 7"),
    ],
)
def test_a_json_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "study.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path, "study", {"a": dict}, "; delete it")
    assert caught.value.file == path


def test_json_is_read_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json_if_any(path) == {}
    path.write_bytes(b"[1]")
    with pytest.raises(DataError, match=r"a\.json.*not a list"):
        read_json_if_any(path)
    path.write_bytes('{"a": {"ρ": 1}}'.encode())
    assert read_json(path, fields={"a": dict}) == read_json_if_any(path) == {"a": {"ρ": 1}}


def test_half_written_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert whole_rows(path) == []
    path.write_text('{"iteration": 1}\n\n{"iteration": 3}\n{"a":')
    assert whole_rows(path) == [{"iteration": 1}, {"iteration": 3}]
    path.write_text('{"iteration": 1}\n[2]\n{"iteration": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, record line 2: .*not a list"):
        whole_rows(path)


GONE = 4194305  # larger than any process id


def test_a_folder_that_lost_its_name_to_a_kill_gets_it_back(tmp_path: Path) -> None:
    """Two renames replace a folder; the kill came between them."""
    (tmp_path / f".model.{GONE}.old.tmp").mkdir()
    (tmp_path / f".model.{GONE}.old.tmp" / "weights").write_text("old")
    (tmp_path / f".model.{GONE}.tmp").mkdir()
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"
    (tmp_path / f".model.{GONE}.old.tmp").mkdir()  # here the second rename was done
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == ["model"]


def test_files_of_a_process_that_runs_stay(tmp_path: Path) -> None:
    mine, other = f".a.json.{os.getpid()}.tmp", f".a.json.{GONE}.tmp"
    for name in (mine, other, ".b.old.tmp", f".c.gz.{GONE}.tmp", f".d.{GONE}.0123abcd.tmp.old.tmp"):
        (tmp_path / name).write_text("half")
    (tmp_path / "d").write_text("whole")
    sweep_temporaries(tmp_path, of="a.json")
    assert len(names(tmp_path)) == 5
    sweep_temporaries(tmp_path)
    assert names(tmp_path) == [mine, "d"]


@pytest.mark.parametrize("moment", ["fill", "sync", "first rename", "second rename"])
def test_a_folder_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = tmp_path / "00001"
    write_folder(folder, lambda new: (new / "a").write_text("1"))
    full = OSError(errno.ENOSPC, "No space left on device")
    rename = os.replace

    def fill(new: Path) -> None:
        (new / "a").write_text("2")
        if moment == "fill":
            raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors says it

    def replace(old: Path, new: Path) -> None:
        if (moment, new.name == "00001") in (("first rename", False), ("second rename", True)) and (
            old.name.endswith(f"{os.getpid()}.tmp") or moment == "first rename"
        ):
            raise full
        rename(old, new)

    def sync(handle: int) -> None:
        if moment == "sync":
            raise full

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="00001") as caught:
        write_folder(folder, fill)
    assert caught.value.errno == errno.ENOSPC
    assert (names(tmp_path), (folder / "a").read_text()) == (["00001"], "1")


def test_an_error_of_the_package_is_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^file x: \[Errno 5\]"), naming(tmp_path):
        raise DataError("[Errno 5] as read", file="x")
    with pytest.raises(FileNotFoundError, match="source"), naming(tmp_path):
        Path("source").read_text()
