"""JSON is read as RFC 8259 says, within stated limits, and an error names file and place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.errors import DataError
from repro_rl.files import finite, parse_json, parse_object, read_json
from repro_rl.files.limits import MAX_DEPTH, MAX_INTEGER, MAX_TEXT, MAX_VALUES

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.booleans())
def test_what_json_writes_is_read_back(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + text.encode()) == value


def message_of(read: Callable[[], Any]) -> str | None:
    """The message of the DataError that ``read`` raises; None where it raises nothing."""
    try:
        read()
    except DataError as error:
        return str(error)
    return None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_data_error(data: bytes) -> None:
    found = message_of(lambda: parse_json(data, file="x.json", record="line 3"))
    assert found is None or found.startswith("file x.json, record line 3: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "deeper than the limit of 100 "),
        ("[" * 100_000, "deeper than the limit of 100 "),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "deeper than the limit of 100 "),
        ("[1" + ",1" * MAX_VALUES + "]", "more values than the limit of 1,000,000"),
        ("[" + "{}," * MAX_VALUES + "1]", "more values than the limit of 1,000,000"),
        ('"' + "a" * MAX_TEXT + '"', "larger than the limit of 33,554,432 "),
        ("9" * 5_000, "integer of 5,000 digits; the limit is 64 bits"),
        ("-" + "9" * 400, "integer of 400 digits; the limit is 64 bits"),
        ("9223372036854775808", "integer of 19 digits; the limit is 64 bits"),
        ("[1e400]", "number 1e400; the limit is 1.8e308"),
        ("-1e999999", "number -1e999999; the limit"),
        ("NaN", "holds NaN, which is no JSON number"),
        ('{"a": -Infinity}', "holds -Infinity, which"),
        (r'"\ud800"', "half a character"),
        (r'{"\udc00": 1}', "half a character"),
        ("", r"not JSON: Expecting value \(column 1\)"),
        ("[1]\n x", r"not JSON: Extra data \(line 2, column 2\)"),
        ("{'a': 1}", "not JSON: Expecting property name"),
    ],
)
def test_what_is_refused_and_why(text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}|{message}"):
        parse_json(text)


def test_values_at_the_limits_are_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deep)) == deep
    assert parse_json(str(MAX_INTEGER)) == MAX_INTEGER
    assert parse_json("1.7976931348623157e308") == 1.7976931348623157e308
    assert parse_json("1e-400") == 0.0
    assert parse_json(r'"\ud83d\ude00"') == "😀"
    text = json.dumps(", [" * MAX_VALUES)  # marks inside a text are no values
    assert parse_json(text) == ", [" * MAX_VALUES


def test_python_s_own_numbers_only_where_they_are_asked_for() -> None:
    row = parse_json('{"loss": NaN, "best": -Infinity}', constants=True)
    assert row["loss"] != row["loss"]
    assert row["best"] == float("-inf")
    assert parse_json(r'"\ud800"', surrogates=True) == "\ud800"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_refused(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"grün": 1}'.encode(codec))
    with pytest.raises(DataError, match=r"a\.json: no settings \(.*(not UTF-8 text: byte 0x|not JSON)"):
        read_json(path, "settings")


def test_true_is_no_number_and_an_object_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"success": true, "tasks": 1}')
    with pytest.raises(DataError, match="'success' is missing or of another type"):
        read_json(path, fields={"success": (int, float)})
    assert read_json(path, fields={"success": bool, "tasks": (int, float)})["tasks"] == 1
    for text, kind in (("[1]", "a list"), ("null", "null"), ("3", "a number"), ('"x"', "a text")):
        with pytest.raises(DataError, match=f"a JSON object was expected, not {kind}"):
            parse_object(text)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '[{"b": {"a": 0, "c": 1, "a": 0}}]'])
def test_a_name_that_is_twice_in_an_object_is_named(text: str) -> None:
    with pytest.raises(DataError, match=r"f\.json.*'a' twice"):
        parse_json(text, file="f.json")


def test_the_same_name_in_different_objects_is_no_duplicate() -> None:
    assert parse_json('[{"a": {"a": 1}}, {"a": 2}]') == [{"a": {"a": 1}}, {"a": 2}]


def test_a_finite_number_is_python_s_or_numpy_s() -> None:
    assert all(map(finite, (1, -0.5, np.float32(0.5), np.int64(3))))
    none = (True, np.True_, float("nan"), np.float64("inf"), "1", None, 1j, [1.0])
    assert not any(map(finite, none))
