"""Files of JSON lines: whole or an error; bombs are refused; damaged rows are kept apart."""

from __future__ import annotations

import gzip
import os
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from repro_rl.errors import DataError
from repro_rl.files import Unpacked, json_lines, lines as module, lines_of, read_bytes, read_rows, read_text

ROWS = b'{"a": 1}\n\n{"a": 2}\n'
PACKED = gzip.compress(ROWS, mtime=0)


def bomb(block: bytes, count: int) -> bytes:
    """A gzip file of ``count`` times ``block``, packed piece by piece."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(stream.compress(block) for _ in range(count)), stream.flush()])


@pytest.mark.parametrize(
    "data",
    [ROWS, PACKED, ROWS.rstrip(), gzip.compress(ROWS[:9], mtime=0) + gzip.compress(ROWS[9:], mtime=0)],
    ids=["plain", "packed", "unfinished", "two members"],
)
def test_lines_plain_or_packed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    assert list(json_lines(path)) == [(1, {"a": 1}), (3, {"a": 2})]
    assert [line.offset for line in lines_of(path)] == [0, 10]
    with Unpacked(path) as file:
        file.seek(10)
        assert file.line().rstrip() == b'{"a": 2}'


@pytest.mark.parametrize("length", [0, 1, 5, 12, len(PACKED) // 2, len(PACKED) - 8, len(PACKED) - 1])
def test_a_gzip_file_cut_anywhere_is_an_error(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(PACKED[:length])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: .*not a whole gzip file"):
        list(json_lines(path, packed=True))


@pytest.mark.parametrize("at", range(12, len(PACKED)))
def test_a_flipped_bit_of_a_gzip_file_is_an_error(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.jsonl.gz"
    data = bytearray(PACKED)
    data[at] ^= 4
    path.write_bytes(data)
    found: object = None
    with suppress(DataError):
        found = list(json_lines(path, packed=True))
    assert found in (None, [(1, {"a": 1}), (3, {"a": 2})])


def test_gzip_bombs_are_refused_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 1 << 20)
    monkeypatch.setattr(module, "MAX_UNPACKED", 8 << 20)
    monkeypatch.setattr(module, "MAX_PACKED_VALUES", 10**9)
    path = tmp_path / "a.jsonl.gz"
    for block, message in (
        (b" " * (1 << 20), "a line larger than the limit of 1,048,576 bytes"),
        (b"\n" * (1 << 20), "record line 1001: more than 1,000 blank lines"),
        (b"{}\n" * (1 << 18), "unpacks to more than 8,388,608 bytes, over 100 times its own size"),
    ):
        path.write_bytes(bomb(block, 40))
        with pytest.raises(DataError, match=f"a\\.jsonl\\.gz.*{message}"):
            for _ in json_lines(path):
                pass


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfabc\xff")
    with pytest.raises(DataError, match=r"/a: is larger than the limit of 5 bytes"):
        read_bytes(path, 5)
    with pytest.raises(DataError, match="byte 0xff at offset 6"):
        read_text(path)
    for other in (tmp_path, Path("/dev/null"), tmp_path / "missing", Path("a\x00b")):
        with pytest.raises(DataError, match="cannot be read: "):
            read_bytes(other)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # nobody writes: opening it as usual would wait for ever
        with pytest.raises(DataError, match="pipe: cannot be read: it is no regular file"):
            list(json_lines(tmp_path / "pipe"))


def test_rows_that_cannot_be_read_are_told_apart_from_an_unfinished_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    bad = [
        b'{"iteration"; 2}',
        b"\xff{}",
        b"7",
        b"{}",
        b'{"iteration": true}',
        b'{"iteration": -1}',
        b"[" * 9999,
    ]
    good = [b'{"iteration": 1, "loss": NaN}', b'{"iteration": 9}']
    path.write_bytes(b"\n".join([good[0], *bad, good[1], b'{"iter']))
    found = read_rows(path)
    assert [row["iteration"] for row in found.rows] == [1, 9]
    assert [line.text.rstrip() for line, _ in found.unreadable] == bad
    assert [line.number for line, _ in found.unreadable] == list(range(2, 9))
    assert found.unfinished == 10
    with pytest.raises(DataError, match=r"metrics\.jsonl, record line 2: not JSON"):
        found.check()
    path.write_bytes(b"\n".join(good) + b"\n" + bytes(4096))  # a power cut leaves zeros
    assert read_rows(path).unfinished == 3
    path.write_bytes(good[0] + b"\n" + good[1])
    assert read_rows(path).unfinished is None


def test_small_files_of_very_many_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PACKED_VALUES", 10_000)
    monkeypatch.setattr(module, "MAX_ROWS", 1_000)
    monkeypatch.setattr(module, "MAX_ROW_VALUES", 2_000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(bomb(b"{}\n" * 20_000, 1))
    with pytest.raises(DataError, match="unpacks to more than 10,000 values, over 100 times its own size"):
        list(json_lines(path))
    rows = b"".join(b'{"a": %d}\n' % (n * 7919 % 100_003) for n in range(20_000))
    path.write_bytes(gzip.compress(rows))  # many values, but they are in the file
    assert len(list(json_lines(path))) == 20_000
    for row, count in ((b'{"iteration": 1}\n', 1_001), (b'{"iteration": 1, "a": 1, "b": 2}\n', 900)):
        path.write_bytes(row * count)
        with pytest.raises(DataError, match="more than the limit of 1,000 rows or 2,000 values"):
            read_rows(path)
