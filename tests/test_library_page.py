"""The pages of docs/library.md: their Python blocks are one program, and every public name is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import repro_rl
from repro_rl import errors
from support.extending_page import DOCS, run_blocks

PROGRAM = ("library-stages", "library-episodes", "library-training")  # in this order
NAMES, ERRORS = DOCS / "public-names.md", DOCS / "errors.md"


def test_the_blocks_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "library_page"}
    for name in PROGRAM:
        run_blocks(DOCS / f"{name}.md", namespace)
    assert (tmp_path / "runs" / "library" / "rl" / "eval" / "last.json").is_file()


def test_every_public_name_is_listed_once_and_no_other() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", NAMES.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(repro_rl.__all__)


def test_an_error_is_caught_as_its_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks(ERRORS, {})
    assert "did you mean 'lr'" in capsys.readouterr().out


def test_every_error_is_listed_with_its_standard_type() -> None:
    listed = re.findall(r"^\| `(\w+)` \| `(\w+)`: ", ERRORS.read_text(), re.MULTILINE)
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    raised = [value for value in classes if issubclass(value, errors.ReproError) and value.__bases__[1:]]
    assert sorted(listed) == sorted((value.__name__, value.__bases__[1].__name__) for value in raised)
