"""Records are checked field by field, and nothing is converted on the way."""

from __future__ import annotations

from typing import Any, NotRequired

import pytest
from typing_extensions import TypedDict

from repro_rl.errors import DataError
from repro_rl.files import check_record
from repro_rl.files.records import Count, Finite, Flag, Points, Share, Text


class Thing(TypedDict):
    """A record of the test."""

    name: Text
    online: Points | None
    truth: NotRequired[Share]
    reward: NotRequired[Finite]
    valid: NotRequired[Flag]
    steps: NotRequired[list[Count]]


GOOD: dict[str, Any] = {
    "name": "a",
    "online": 100,
    "truth": 1,
    "reward": -2.5,
    "valid": True,
    "steps": [0, 3],
}


def test_a_good_record_and_one_with_more_fields_pass() -> None:
    assert check_record(Thing, GOOD) == GOOD
    assert check_record(Thing, {"name": "", "online": None, "later": 1}) == {"name": "", "online": None}


@pytest.mark.parametrize(
    ("field", "value", "place"),
    [
        ("name", 7, "name"),
        ("name", None, "name"),
        ("online", 101, "online"),
        ("online", -1, "online"),
        ("online", 50.0, "online"),
        ("online", "50", "online"),
        ("online", True, "online"),
        ("truth", 1.5, "truth"),
        ("truth", True, "truth"),
        ("reward", float("nan"), "reward"),
        ("reward", float("-inf"), "reward"),
        ("reward", "1", "reward"),
        ("valid", 1, "valid"),
        ("valid", "yes", "valid"),
        ("steps", {"0": 1}, "steps"),
        ("steps", [1, -1], r"steps\.1"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(field: str, value: Any, place: str) -> None:
    with pytest.raises(DataError, match=rf"^file f, record line 2, field {place}: .*\(got "):
        check_record(Thing, GOOD | {field: value}, file="f", record="line 2")


def test_a_missing_field_and_a_long_value() -> None:
    with pytest.raises(DataError, match=r"^field online: Field required$"):
        check_record(Thing, {"name": "a"})
    with pytest.raises(DataError) as caught:
        check_record(Thing, {"name": "a", "online": "x" * 10_000})
    assert len(str(caught.value)) < 200
