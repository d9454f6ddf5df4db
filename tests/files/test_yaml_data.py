"""Tables in YAML files are checked when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from repro_rl.errors import DataError
from repro_rl.files import TABLE, read_yaml


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
