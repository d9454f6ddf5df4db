"""Assigns goals to splits."""

from __future__ import annotations

from collections.abc import Iterator

from repro_rl.envs.webshop.goals import GoalList
from repro_rl.random_streams import name_key

TEST, EVAL = 500, 1_500  # the usual positions: test below 500, eval below 1,500, the rest train
HELD_OUT = 0.15  # share of products that are targets of the test split, and of the validation split
SPLITS_BY = {
    "product": ("train", "validation", "test", "all"),
    "position": ("train", "validation", "eval", "rest", "test", "all"),
}


def split_positions(goals: GoalList, split: str, by: str, limit: int, seed: int) -> list[int]:
    """Positions of the split's goals in the list, in the panel's order; at most ``limit`` are looked at.

    "position": the usual ranges, with "validation" as an alias of "eval". Some papers train on "rest" (from
    500 on). With "product", a product is the target of one split only, by a hash of (seed, ASIN). Test and
    validation hold at most 500 goals, every product's first goal before any second one, so that a small head
    is varied.
    """
    count = min(len(goals), limit)
    if split == "all":
        return list(range(count))
    if by == "position":
        start, stop = {
            "test": (0, TEST),
            "eval": (TEST, EVAL),
            "validation": (TEST, EVAL),
            "rest": (TEST, count),
            "train": (EVAL, count),
        }[split]
        return list(range(min(start, count), min(stop, count)))
    if split == "train":
        return list(_of_split(goals, split, count, seed))
    earlier: dict[str, int] = {}  # ASIN -> goals of this product so far
    ranked = []
    for position in _of_split(goals, split, count, seed):
        asin = goals.asin(position)
        ranked.append((earlier.get(asin, 0), position))
        earlier[asin] = earlier.get(asin, 0) + 1
    return [position for _, position in sorted(ranked)[:TEST]]


def _of_split(goals: GoalList, split: str, count: int, seed: int) -> Iterator[int]:
    kinds: dict[str, str] = {}
    for position in range(count):
        asin = goals.asin(position)
        if asin not in kinds:
            share = name_key(seed, "webshop split", asin) / 2**64
            kinds[asin] = "test" if share < HELD_OUT else "validation" if share < 2 * HELD_OUT else "train"
        if kinds[asin] == split:
            yield position
