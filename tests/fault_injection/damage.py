"""Damages files at random, from a seed: bytes, lines, and values of JSON, JSON lines and YAML.

What a disk, a broken copy, an editor, another program or somebody else does to a file.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

MARK = "@@MARK@@"
DEEP = "[" * 100_000 + "]" * 100_000
# Texts to put in the place of a value; not all of them are JSON.
LITERALS = (
    *("null", "true", "false", "0", "-1", "1", "0.5", "-0.0", "101", "1e400", "-1e400", "1e-400", "9" * 400),
    *("9" * 5000, "9223372036854775808", "-9223372036854775809", "NaN", "Infinity", "-Infinity", '""'),
    *('"x"', '"\\ud800"', '"\\u0000"', '"1e400"', '"../../etc/passwd"', "[]", "{}", "[1]", '["a"]', "[null]"),
    *(
        '{"a": 1}',
        '{"name": []}',
        "[[[[1]]]]",
        DEEP,
        "[" * 3000,
        '"' + "é" * 3000 + '"',
        "01",
        "1.",
        "'x'",
        "",
    ),
)
YAML_LITERALS = (
    *(LITERALS[i] for i in range(19)),
    *("~", ".inf", "-.inf", ".nan", "[]", "{}", "[1, 2]", "{a: 1}", "&a [*a]", "*missing", "!!python/none x"),
    *("!!int x", "!!float x", "!!binary x", "!!timestamp x", "2020-13-45", "2020-01-01", "1:99", "'", '"'),
    *(
        "[" * 3000,
        "[" * 100_000,
        "{" * 3000,
        "\t",
        "? [a]",
        "<<: 3",
        "|\n x",
        "0x",
        "0o9",
        "yes",
        "a: b",
        "-",
    ),
)


def damaged(data: bytes, kind: str, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """``data`` with one damage, rarely several; it may by chance come out as it was.

    ``kind``: "json", "jsonl", "yaml", "text" or "binary", with ".gz" at its end where the file is gzip: of
    these half are damaged inside, so that no checksum tells. ``others``: contents of other files, for swaps.
    """
    for _ in range(1 if random.random() < 0.8 else random.randint(2, 4)):
        packed = kind.endswith(".gz") and data[:2] == b"\x1f\x8b"
        if packed and random.random() < 0.5:
            try:
                inner = gzip.decompress(data)
            except Exception:  # damaged before
                continue
            data = gzip.compress(_once(inner, kind.removesuffix(".gz"), random, others), 1, mtime=0)
        else:
            data = _once(data, "binary" if packed else kind, random, others)
    return data


def _once(data: bytes, kind: str, random: Random, others: Sequence[bytes]) -> bytes:
    if kind in ("json", "jsonl", "yaml") and random.random() < 0.6:
        return _VALUES[kind](data, random)
    if kind != "binary" and random.random() < 0.4:
        return random.choice(TEXT_DAMAGES)(data, random)
    if others and random.random() < 0.03:
        return random.choice(others)
    return random.choice(BYTE_DAMAGES)(data, random)


# Bytes --------------------------------------------------------------------------------------------


def _span(data: bytes, random: Random, most: int = 200) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randint(1, most))


def _flip(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        if out:
            out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    return bytes(out)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _delete(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _insert(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randint(1, 50)) + data[at:]


def _double(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random)
    return data[:end] + data[start:]


def _zeros(data: bytes, random: Random) -> bytes:
    start, end = _span(data, random, 4096)
    return data[:start] + bytes(end - start) + data[end:]


def _tail(data: bytes, random: Random) -> bytes:
    return data + random.choice((b"\x00", b"x", b"\n", bytes(4096), data[:100], b"}"))


BYTE_DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_flip, _flip, _cut, _cut, _delete, _insert, _double, _zeros, _tail),
    lambda data, random: b"",
    lambda data, random: random.randbytes(random.randint(1, 500)),
)


# Text ---------------------------------------------------------------------------------------------


def _lines(change: Callable[[list[bytes], int, Random], None]) -> Callable[[bytes, Random], bytes]:
    def damage(data: bytes, random: Random) -> bytes:
        lines = data.splitlines(keepends=True)
        if lines:
            change(lines, random.randrange(len(lines)), random)
        return b"".join(lines)

    return damage


def _swap(lines: list[bytes], at: int, random: Random) -> None:
    other = random.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _recoded(codec: str) -> Callable[[bytes, Random], bytes]:
    return lambda data, random: data.decode("utf-8", "replace").encode(codec, "replace")


def _put(lines: list[bytes], at: int, text: bytes) -> None:
    lines[at] = text


TEXT_DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    _lines(lambda lines, at, random: lines.pop(at)),  # type: ignore[arg-type,return-value]
    _lines(lambda lines, at, random: lines.insert(at, lines[at])),
    _lines(lambda lines, at, random: _put(lines, at, b"\n")),
    _lines(lambda lines, at, random: _put(lines, at, lines[at].replace(b" ", b"\t", 1))),
    _lines(lambda lines, at, random: _put(lines, at, lines[at][: len(lines[at]) // 2] + b"\n")),
    _lines(_swap),
    _recoded("utf-16"),
    _recoded("utf-32"),
    _recoded("utf-8-sig"),
    lambda data, random: data.replace(b"\n", b"\r\n"),
    lambda data, random: data.replace(b"\n", b"\r"),
    lambda data, random: data.replace(b"\n", "\u2028".encode()),
    lambda data, random: data.replace(b"e", "\u00e9".encode("latin-1"), random.randint(1, 3)),
    lambda data, random: data.replace(b'"', b"'", random.randint(1, 3)),
)


# Values -------------------------------------------------------------------------------------------


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside, not too many of one list."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items)[:40]:
        found += _places(item, (*path, key))
    return found


def change_value(value: Any, random: Random) -> str:
    """The JSON text of ``value`` with one value inside it damaged."""
    value = copy.deepcopy(value)
    places = _places(value)
    if not places:
        return random.choice(LITERALS)
    *parents, key = random.choice(places)
    holder = value
    for part in parents:
        holder = holder[part]
    action = random.random()
    if action < 0.2:
        del holder[key]
    elif action < 0.25 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif action < 0.3:
        holder[key] = [holder[key]]
    else:
        holder[key] = MARK
    literal = random.choice(LITERALS) if random.random() < 0.8 else json.dumps(random.random() * 200 - 50)
    return json.dumps(value, ensure_ascii=random.random() < 0.5).replace(f'"{MARK}"', literal)


def _in_json(data: bytes, random: Random) -> bytes:
    try:
        return change_value(json.loads(data), random).encode()
    except (ValueError, RecursionError):  # damaged before
        return _flip(data, random)


def _in_line(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = random.randrange(len(lines))
    lines[at] = _in_json(lines[at], random) + b"\n"
    return b"".join(lines)


def _in_yaml(data: bytes, random: Random) -> bytes:
    """Another value behind a key, a key renamed or indented, or an item of a list put into its place."""
    text = data.decode("utf-8", "replace")
    keys = list(re.finditer(r"(?m)^( *)([\w-]+):[ ]?(.*)$", text))
    if not keys:
        return _flip(data, random)
    match = random.choice(keys)
    action = random.random()
    if action < 0.7:
        new = f"{match[1]}{match[2]}: {random.choice(YAML_LITERALS)}"
    elif action < 0.8:
        new = f"{match[1]}{match[2]}x: {match[3]}"
    elif action < 0.9:
        new = f"{' ' * random.randrange(8)}{match[2]}: {match[3]}"
    else:
        new = f"{match[0]}\n{match[0]}"
    return (text[: match.start()] + new + text[match.end() :]).encode("utf-8", "replace")


_VALUES = {"json": _in_json, "jsonl": _in_line, "yaml": _in_yaml}
