"""DAPO (arXiv 2503.14476): the soft penalty on long answers, and which task groups are kept."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from repro_rl.credit.baseline import check_pairs, finite_array


def overlong_penalty(length: int, max_length: int, buffer: int, factor: float) -> float:
    """``-min(max(length - (max_length - buffer), 0), buffer) / buffer * factor``: 0 down to -factor.

    The penalty begins ``buffer`` tokens before ``max_length`` and is whole there and beyond. With a buffer of
    0 it is whole beyond ``max_length`` alone. Source: OpenRLHF and verl, the same formula.
    """
    beyond = length - (max_length - buffer)
    if beyond <= 0:
        return 0.0
    return -factor * (min(beyond, buffer) / buffer if buffer else 1.0)


def mixed(outcomes: Sequence[float]) -> bool:
    """Whether a group is kept by dynamic sampling: its outcomes differ, or it has one member only."""
    return len(outcomes) == 1 or len(set(outcomes)) > 1


def kept_groups(groups: Sequence[Hashable], returns: Sequence[float]) -> dict[Hashable, bool]:
    """For each task whether its group is kept, from groups and returns [N].

    Raises ConfigError for unequal lengths and a return that is no finite number.
    """
    check_pairs("kept_groups", returns, groups)
    finite_array("returns", returns)
    of: dict[Hashable, list[float]] = {}
    for group, value in zip(groups, returns, strict=True):
        of.setdefault(group, []).append(value)
    return {group: mixed(values) for group, values in of.items()}
