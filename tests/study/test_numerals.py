"""Numbers in texts."""

from __future__ import annotations

from repro_rl.study.numerals import numbered


def test_equal_labels_are_numbered() -> None:
    assert numbered(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]
    assert numbered([]) == []
