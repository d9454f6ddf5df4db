"""The character classes of the word-break rules."""

from __future__ import annotations

import itertools

from repro_rl.envs.webshop.search.analyzer import character_ranges


def test_character_classes_do_not_overlap() -> None:
    found = sorted(
        (int(first, 16), int(last or first, 16))
        for ranges in character_ranges().values()
        for first, _, last in (item.partition("-") for item in ranges.split())
    )
    assert all(first <= last for first, last in found)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(found))
