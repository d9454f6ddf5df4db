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
GROWS = "a part of it unpacks to over 100 times its size and would take over 8 MiB of memory"


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
    path = tmp_path / "a.jsonl.gz"
    for block, message in (
        (b" " * (1 << 20), "a line larger than the limit of 1,048,576 bytes"),
        (b"\n" * (1 << 20), "record line 1001: more than 1,000 blank lines"),
        (b"{}\n" * (1 << 18), GROWS),
        (b'{"a": "' + b"a" * (1 << 19) + b'"}\n', GROWS),
        (b'{"a": [' + b"[]," * 100_000 + b"1]}\n", GROWS),
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
    monkeypatch.setattr(module, "MAX_UNPACKED", 8 << 20)
    monkeypatch.setattr(module, "MAX_ROWS", 1_000)
    monkeypatch.setattr(module, "MAX_ROW_VALUES", 2_000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(bomb(b"{}\n" * 20_000, 1))
    with pytest.raises(DataError, match=GROWS):
        list(json_lines(path))
    rows = b"".join(b'{"a": %d}\n' % (n * 7919 % 100_003) for n in range(20_000))
    path.write_bytes(gzip.compress(rows))  # many values, but they are in the file
    assert len(list(json_lines(path))) == 20_000
    for row, count in ((b'{"iteration": 1}\n', 1_001), (b'{"iteration": 1, "a": 1, "b": 2}\n', 900)):
        path.write_bytes(row * count)
        with pytest.raises(DataError, match="more than the limit of 1,000 rows or 2,000 values"):
            read_rows(path)


def lines_before_refusal(path: Path) -> int:
    """How many lines a file gives before it is refused for what it grows to."""
    found: list[int] = []
    with pytest.raises(DataError, match=GROWS):
        found.extend(line.number for line in lines_of(path, packed=True))
    return len(found)


def test_a_bomb_is_refused_before_it_costs_time_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 MiB allow for 2,000 lines of 4 KiB; a reader that goes on behind a bad line would read them all."""
    monkeypatch.setattr(module, "MAX_UNPACKED", 8 << 20)
    path = tmp_path / "a.jsonl.gz"
    beyond = 2_100  # and what the pieces of 1 KiB that are read at once may grow to, 100 KiB each
    path.write_bytes(bomb(b"x\n" * 50_000, 40))
    assert 1_900 < lines_before_refusal(path) < 2 * 102_400 / 2 + beyond
    noise = os.urandom(400_000).hex().encode()  # 400 KB packed: the file as a whole grows 10 times only
    path.write_bytes(gzip.compress(noise + b"\n") + bomb(b"{}\n" * 50_000, 40))
    assert path.stat().st_size * 100 > len(noise) + 6_000_000
    assert 1_900 < lines_before_refusal(path) < 2 * 102_400 / 3 + beyond


def test_a_text_of_wide_characters_counts_four_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MiB are 8 lines of 1,000,000 characters, or 2 lines of as many that take four bytes each."""
    monkeypatch.setattr(module, "MAX_UNPACKED", 8 << 20)
    path = tmp_path / "a.jsonl.gz"
    for end, lines in ((b"a", 8), ("😀".encode(), 2), (b"\\ud83d\\ude00", 2)):
        path.write_bytes(bomb(b'{"a": "' + b"a" * 1_000_000 + end + b'"}\n', 20))
        assert lines_before_refusal(path) == lines


def test_a_large_file_is_read_where_it_grows_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short stretches above the ratio, such as equal episodes side by side, do not add up."""
    monkeypatch.setattr(module, "MAX_UNPACKED", 8 << 20)
    path = tmp_path / "a.jsonl.gz"
    row = b'{"a": "%s", "b": "' + b"b" * 100_000 + b'"}\n'
    path.write_bytes(gzip.compress(b"".join(row % os.urandom(1000).hex().encode() for _ in range(200))))
    assert 60 < 200 * 102_000 / path.stat().st_size < 100
    assert len(list(json_lines(path))) == 200


def test_what_is_skipped_in_a_file_that_was_read_is_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(bomb(b"{}\n" * 90_000, 1))
    *_, last = lines_of(path, packed=True)
    with Unpacked(path, packed=True) as file:
        file.seek(last.offset)
        assert file.read(100) == b"{}\n"


def test_a_file_of_rows_that_cannot_be_read_is_refused_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is kept in memory, so that it can be set aside."""
    monkeypatch.setattr(module, "MAX_UNREADABLE", 20)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n' + b"x\n" * 20)
    assert len(read_rows(path).unreadable) == 20
    for rows in (b"x\n" * 21, b"[]\n" * 30):
        path.write_bytes(b'{"iteration": 1}\n' + rows)
        with pytest.raises(DataError, match=r"metrics\.jsonl: holds more than 20 rows.*from line 2 on"):
            read_rows(path)
    monkeypatch.setattr(module, "MAX_TEXT", 1000)
    path.write_bytes((b"x" * 400 + b"\n") * 3)
    with pytest.raises(DataError, match="or 1,000 bytes, that cannot be read, from line 1 on"):
        read_rows(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'[\n  {"a": 1},\n  {"a": 2}\n]\n', "not JSON"),
        (b'[{"a": 1}]\n', "a JSON object was expected, not a list"),
        (b'{\n  "a": 1\n}\n', "not JSON"),
    ],
)
def test_a_whole_document_is_told_what_json_lines_are(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(data)
    with pytest.raises(
        DataError, match=rf"record line 1: {reason}.*; in JSON lines each line holds one whole"
    ):
        list(json_lines(tmp_path / "rows.jsonl"))


def test_other_broken_lines_are_not(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match=r"record line 2: not JSON: .*\)$"):
        list(json_lines(tmp_path / "rows.jsonl"))
