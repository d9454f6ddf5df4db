"""Dynamic sampling (DAPO, arXiv 2503.14476): groups whose outcomes are all equal make room for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from repro_rl.credit import mixed
from repro_rl.types import Group

# Plays further groups: (round from 1, groups played so far, how many more) -> that many groups.
PlayMore = Callable[[int, int, int], Sequence[Group]]


@dataclass(slots=True)
class Sampled:
    """What an iteration trains on, and what was played beside it."""

    groups: list[Group]  # as many as were asked for
    dropped: list[Group]  # played, and not trained on


def is_mixed(group: Group) -> bool:
    """Whether the returns of the environment differ in the group; failed episodes do not count.

    A group of one is kept. One that failures have left a single episode is not: there is no difference.
    """
    outcomes = [t.env_return for t in group.trajectories if not t.failed]
    whole = len(outcomes) == len(group.trajectories)
    return bool(outcomes) and mixed(outcomes) and (whole or len(outcomes) > 1)


def fill_mixed(first: Sequence[Group], play: PlayMore, rounds: int) -> Sampled:
    """As many groups as ``first`` has, mixed ones as far as ``rounds`` further rounds give them.

    Every round plays as many groups as are missing. What is still missing then is taken from the groups
    without a difference, in the order they were played. There a centred return is no advantage, while step
    parts may be one. The cost is about 1 / P(mixed) times as many episodes: compare by environment steps.
    """
    count, played = len(first), list(first)
    for number in range(1, rounds + 1):
        missing = count - sum(is_mixed(group) for group in played)
        if missing <= 0:
            break
        played += play(number, len(played), missing)
    order = sorted(range(len(played)), key=lambda i: not is_mixed(played[i]))  # stable
    kept = set(order[:count])
    return Sampled(
        groups=[group for i, group in enumerate(played) if i in kept],
        dropped=[group for i, group in enumerate(played) if i not in kept],
    )
