"""Output in an encoding that lacks characters: nothing fails, and tables keep their columns."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
from pathlib import Path

import pytest

from repro_rl.cli.terminal import _plain

SOURCE = Path(__file__).parents[2] / "src"


def output(*arguments: str, encoding: str, stdin: str = "") -> str:
    """What ``repro-rl`` prints in an encoding; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "repro_rl", *arguments],
        input=stdin.encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": encoding, "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stderr.decode(encoding, errors="replace")
    return done.stdout.decode(encoding)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("--help",), "Commands"),
        (("train", "--help"), "--method"),
        (("doctor", "sokoban"), "expert wins"),
        (("settings", "train"), "train.lr"),
        (("list", "methods"), "gigpo"),
        (("settings", "oracle"), "when any step lacks it. It reads no settings of its own."),
    ],
)
def test_every_kind_of_output_survives(encoding: str, arguments: tuple[str, ...], shown: str) -> None:
    assert shown in output(*arguments, encoding=encoding)


def test_similar_characters_stand_for_those_that_are_missing() -> None:
    code = (
        "from repro_rl.cli.terminal import survive_encodings; survive_encodings(); "
        "print('✓ a → b − ρ ≥ é \\u0107 🧱 \\u2713')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": "cp1252"},
    )
    assert done.stdout.decode("cp1252").split() == ["+", "a", ">", "b", "-", "r", ">=", "é", "c", "?", "+"]


def test_a_bound_keeps_its_meaning_without_its_sign() -> None:
    codecs.register_error("plain for this test", _plain)
    assert "≥ 0, ≤ 1".encode("cp1252", "plain for this test") == b">= 0, <= 1"
