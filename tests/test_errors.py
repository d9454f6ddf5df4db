"""Errors: what they say, and what else they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from repro_rl import errors
from repro_rl.errors import DataError, ReproError, clause, did_you_mean, named_failure, some


def test_every_error_is_ours_and_one_of_the_standard_library() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    assert len(kinds) > 10
    for kind in kinds:
        assert issubclass(kind, ReproError)
        builtin = [base for base in kind.__mro__ if base.__module__ == "builtins"]
        assert kind is ReproError or builtin[0] is not Exception, kind


def test_the_place_of_an_error_is_in_the_user_s_file(tmp_path: Path) -> None:
    """Of a plug-in that calls this package wrongly: its own line, not ours."""
    (tmp_path / "mine.py").write_text(
        "from repro_rl.credit import register_credit\n\n@register_credit('mine', ignores=['nothing'])\n"
        "def rule(inputs, settings): ...\n"
    )
    with pytest.raises(ReproError) as caught:
        runpy.run_path(str(tmp_path / "mine.py"))
    assert errors.place_of(caught.value) == " (mine.py, line 3)"


def test_the_place_of_an_error_is_not_in_a_library(tmp_path: Path) -> None:
    """Of a plug-in that calls Python's library or an installed package wrongly: its own line too."""
    for call in ("pathlib.Path('no/such').read_text()", "json.loads('{')", "numpy.zeros(3).reshape(2, 2)",
                 "yaml.safe_load('{')"):  # fmt: skip
        (tmp_path / "mine.py").write_text(f"import json, pathlib\nimport numpy, yaml\n\n{call}\n")
        with pytest.raises(Exception) as caught:  # noqa: PT011  (each call raises another one)
            runpy.run_path(str(tmp_path / "mine.py"))
        assert errors.place_of(caught.value) == " (mine.py, line 4)", call


def test_a_data_error_says_where() -> None:
    error = DataError("not a number", file="a.json", record=0, field="price")
    assert str(error) == "file a.json, record 0, field price: not a number"
    assert (error.file, error.record, error.field) == ("a.json", 0, "price")
    assert str(DataError("empty")) == "empty"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("gigop", ["grpo", "gigpo"], "; did you mean 'gigpo'? Known: gigpo, grpo"),
        ("zzz", ["grpo"], ". Known: grpo"),
        ("zzz", [], ". Known: none"),
    ],
)
def test_did_you_mean(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [
        ([], 3, "nothing"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c", "d", "e"], 3, "a, b, c and 2 more"),
        (["a", "b"], 1, "a and 1 more"),
    ],
)
def test_some_of_many_names(names: list[str], most: int, text: str) -> None:
    assert some(names, most) == text


@pytest.mark.parametrize("message", ["It broke", "It broke.", ValueError("It broke.")])
def test_a_message_in_a_sentence_ends_with_one_stop(message: object) -> None:
    assert f"Line 3: {clause(message)}. Mend it." == "Line 3: It broke. Mend it."


def test_a_failure_of_a_user_s_code_has_no_two_stops() -> None:
    sentence = r"^Mine failed: ValueError: It broke( \(.*\))?\. Mend it there"
    with pytest.raises(ReproError, match=sentence), named_failure("Mine"):
        raise ValueError("It broke.")
