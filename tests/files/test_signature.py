"""Files that this account has written, and those that it has not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from repro_rl.files.signature import MARK, has_signature, is_signed, signature, signed


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPRO_RL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_signed_text_is_known_until_it_is_edited(home: Path) -> None:
    text = signed("seed: 1\n")
    assert text.startswith("seed: 1\n# written here: ")
    assert is_signed(text)
    for other in (
        "seed: 1\n",
        text.replace("1\n", "2\n", 1),
        text[:-2] + "\n",
        text + "plugins: [evil]\n",
        text.rstrip("\n"),
        "plugins: [evil]\n" + text,
        "",
    ):
        assert not is_signed(other), other


def test_another_account_has_another_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = signed("a: 1\n")
    monkeypatch.setenv("REPRO_RL_HOME", str(home.with_name("other")))
    assert not is_signed(text)
    assert is_signed(signed("a: 1\n"))
    monkeypatch.setenv("REPRO_RL_HOME", str(home))
    assert is_signed(text)


def test_the_key_is_its_owners_alone(home: Path) -> None:
    signed("x")
    key = home / "key"
    assert len(key.read_bytes()) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert os.listdir(home) == ["key"]


def test_a_damaged_key_is_replaced(home: Path) -> None:
    old = signed("x")
    (home / "key").write_bytes(b"short")
    assert not is_signed(old)
    assert is_signed(signed("x"))


def test_without_a_place_for_the_key_nothing_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("REPRO_RL_HOME", str(tmp_path / "file"))
    assert signed("x\n") == "x\n"
    assert signature("x") is None
    assert not has_signature("x", None)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text())
def test_no_other_text_passes(text: str, other: str) -> None:
    assert is_signed(signed(text))
    forged = other + MARK + signed(text).rpartition(MARK)[2]
    assert is_signed(forged) is (other == text)
