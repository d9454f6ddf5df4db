"""Settings of functions: what a signature says of them, and what is refused."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from repro_rl.errors import ConfigError
from repro_rl.function_settings import keyword_settings, read_settings_of

if TYPE_CHECKING:
    from numpy import Missing  # type: ignore[attr-defined]

MINE = "The credit rule 'mine'"
SECTION = "method.credit_settings"


def typed(
    a: Missing,
    *,
    won: Any,
    share: Annotated[float, Field(ge=0, le=1)] = 1,
    mode: Literal["in", "out"] = "in",
    count=2,  # type: ignore[no-untyped-def]
    weight=0.5,
    label="x",
    sizes=(1, 2),
    limit: int | None = None,
    free=None,
): ...


def read(**given: Any) -> dict[str, Any]:
    return read_settings_of(MINE, typed, SECTION, given, inputs=("won",))


def test_defaults_and_given_values_have_the_types_of_the_parameters() -> None:
    assert read() == {
        "share": 1.0, "mode": "in", "count": 2, "weight": 0.5, "label": "x", "sizes": (1, 2), "limit": None,
        "free": None,
    }  # fmt: skip
    given = read(share=0.25, mode="out", count=3, weight=2, sizes=[4], limit=7, free={"a": [1]})
    assert (given["share"], given["mode"], given["count"], given["weight"]) == (0.25, "out", 3, 2.0)
    assert (given["sizes"], given["limit"], given["free"]) == ((4,), 7, {"a": [1]})
    bound = functools.partial(typed, weight=0.75)
    assert keyword_settings(MINE, bound, SECTION, ("won",))["weight"] == 0.75


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"wait": 1},
            r"method\.credit_settings: the credit rule 'mine' has no setting 'wait'; did you mean 'w",
        ),
        ({"share": 1.5}, r"method\.credit_settings\.share: .*less than or equal to 1 \(got 1\.5\)"),
        ({"mode": "on"}, r"mode: Input should be 'in' or 'out' \(got 'on'\)"),
        ({"count": 2.5}, r"count: .* \(got 2\.5\)\. Its default is 2; with 2\.0 it takes any number"),
        ({"limit": 2.5}, r"limit: .*integer.* \(got 2\.5\)$"),
        ({"weight": "much"}, r"weight: .*number.* \(got 'much'\)"),
        ({"weight": float("nan")}, r"weight: .*finite"),
        ({"label": False}, r"label: .*string \(got False\)\. Text that YAML reads .* needs quotes"),
        ({"won": True}, "has no setting 'won'"),
        ({"count": None, "wait": 1}, r"(?s)no setting 'wait'.*\n.*count: Input should be a valid integer"),
    ],
)
def test_wrong_values_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(**given)


def bare(a, *, weight): ...  # type: ignore[no-untyped-def]
def unwritable(a, *, weight=len): ...  # type: ignore[no-untyped-def]
def endless(a, *, weight=float("inf")): ...  # type: ignore[no-untyped-def]
def other(a, *, weight: int = "x"): ...  # type: ignore[no-untyped-def, assignment]
def odd(a, *, weight: range = 1): ...  # type: ignore[no-untyped-def, assignment]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (bare, "The credit rule 'mine': give its setting 'weight' a default"),
        (unwritable, r"'weight' is <built-in function len>, which a settings file cannot hold"),
        (endless, "'weight' is inf, which a settings file cannot hold"),
        (other, "'weight' is 'x', but its type says: Input should be a valid integer"),
        (odd, "the type <class 'range'> of its setting 'weight' cannot be checked"),
        (3, "must be a function with parameters to read: 3 is not a callable object"),
    ],
)
def test_settings_that_no_run_could_give_are_refused(function: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        keyword_settings(MINE, function, SECTION)
