"""Tables in YAML files are checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from repro_rl.errors import DataError
from repro_rl.files import TABLE, load_yaml, parse_yaml, read_yaml


@dataclass(slots=True, frozen=True)
class Shelf:
    """A table of the test."""

    __pydantic_config__ = TABLE
    height: int
    things: tuple[str, ...] = ()


def test_a_table_is_read_as_its_dataclass(tmp_path: Path) -> None:
    file = tmp_path / "shelves.yaml"
    file.write_text("low: {height: 10, things: [book, 'on']}\n")
    assert read_yaml(file, dict[str, Shelf]) == {"low": Shelf(10, ("book", "on"))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("low: {height: tall}", r"shelves\.yaml, field low\.height: .*integer"),
        ("low: {heigth: 10, height: 10}", r"shelves\.yaml, field low\.heigth: "),
        ("low: {things: []}", r"shelves\.yaml, field low\.height: .*required"),
        ("low: {height: 10, things: [on]}", r"shelves\.yaml, field low\.things\.0: .*string"),
        ("low: {height: 10", r"shelves\.yaml: cannot be read as YAML: .*line 1"),
        (None, r"shelves\.yaml: cannot be read"),
    ],
)
def test_a_broken_table_names_file_and_key(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "shelves.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=f"(?s){message}"):
        read_yaml(file, dict[str, Shelf])


ALIASES = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested deeper than the limit of 100 "),  # libyaml would end the process, or refuse
        ("a: " + "{b: [" * 1_500, "nested deeper than the limit of 100 "),
        ("\n".join(" " * n + "a:" for n in range(3_000)), "nested deeper than the limit of 100 "),
        ("- " * 3_000 + "a", "nested deeper than the limit of 100 "),
        (ALIASES, "more values than the limit of 100,000, aliases counted each time"),
        ("- 1\n" * 100_001, "more values than the limit of 100,000"),
        ("&a [*a]", "the anchor &a holds itself"),
        ("a: &b {c: [*b]}", "the anchor &b holds itself"),
        ("9" * 5_000, "cannot be read as YAML: .*4300 digits"),
        ("a: " + "9" * 400, "the limit is 64 bits"),
        ("lr: .inf", "holds the number inf; only finite numbers"),
        ("[1, {a: -.nan}, .nan]", "holds the number nan; only finite numbers"),
        ("when: 2020-13-45", "cannot be read as YAML: month must be in"),
        ("? [a]\n: 1", "cannot be read as YAML: .*unhashable"),
        ("!!timestamp x", "cannot be read as YAML: "),
        (
            "!!python/object/apply:os.system [ls]",
            "cannot be read as YAML: .*could not determine a constructor",
        ),
        ("--- 1\n--- 2", "cannot be read as YAML: .*single document"),
        ("a: \x00", "cannot be read as YAML: "),
    ],
)
def test_what_is_refused_and_why(text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)^file x\.yaml: .*{message}"):
        parse_yaml(text, file="x.yaml")


def test_anchors_and_long_texts_within_the_limits_are_read(tmp_path: Path) -> None:
    assert parse_yaml("a: &a {b: 1}\nc: {<<: *a, d: *a}") == {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeff# – ä\nb: 'ρ'\n".encode())
    assert load_yaml(path) == {"b": "ρ"}
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(DataError, match=r"a\.yaml: is not UTF-8 text: byte 0xe9 at offset 5"):
        load_yaml(path)
    path.write_bytes(b"#" * (4 << 20) + b"\n")
    with pytest.raises(DataError, match="larger than the limit of 4,194,304 bytes"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("train: {lr: 1.0}\nseed: 1\ntrain: {groups: 2}\n", "train", 3),
        ("a: {x: 1, y: 2, x: 1}\n", "x", 1),
        ("- b: 1\n  c:\n    d: [1, {e: 1}]\n    d: 2\n", "d", 4),
        ("a: 1\n'a': 2\n", "a", 2),
    ],
)
def test_a_key_that_is_twice_in_a_mapping_is_named(text: str, key: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"f\.yaml.*key '{key}' a second time in line {line}"):
        parse_yaml(text, file="f.yaml")


def test_the_same_key_in_different_mappings_is_no_duplicate() -> None:
    text = "base: &base {x: 1}\na: {<<: *base, y: {x: a, a: x}}\nb: [{x: 1}, {x: 2}]\n? [p, p]\n: p\n"
    with pytest.raises(DataError, match="unhashable"):  # a list as a key is not this check's business
        parse_yaml(text)
    assert parse_yaml(text.partition("?")[0]) == {
        "base": {"x": 1},
        "a": {"x": 1, "y": {"x": "a", "a": "x"}},
        "b": [{"x": 1}, {"x": 2}],
    }
