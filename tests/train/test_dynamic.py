"""Dynamic sampling: which groups are kept, and how many more are played."""

from __future__ import annotations

from hypothesis import given, strategies as st

from repro_rl.train.dynamic import fill_mixed, is_mixed
from repro_rl.types import Group
from support.credit_cases import episode, step


def group(*returns: float, error: str | None = None) -> Group:
    episodes = [episode([step(1, reward=value)]) for value in returns]
    if error is not None:
        episodes[-1].fail(error)
    return Group("task", episodes)


def test_a_group_is_mixed_when_its_returns_differ() -> None:
    assert is_mixed(group(0.0, 10.0))
    assert not is_mixed(group(10.0, 10.0))
    assert is_mixed(group(10.0)), "one alone is kept"
    assert not is_mixed(group(0.0, 0.0, 10.0, error="lost")), "a failed episode has no outcome"
    assert not is_mixed(group(1.0, error="lost"))
    assert not is_mixed(group(10.0, 0.0, error="lost")), "one that is left of two has nothing beside it"


def test_rounds_play_what_is_missing_until_there_is_enough() -> None:
    asked: list[tuple[int, int, int]] = []

    def more(number: int, played: int, count: int) -> list[Group]:
        asked.append((number, played, count))
        return [group(0.0, 1.0)] + [group(0.0, 0.0)] * (count - 1)

    first = [group(0.0, 0.0), group(0.0, 5.0), group(1.0, 1.0), group(2.0, 2.0)]
    sampled = fill_mixed(first, more, 2)
    assert asked == [(1, 4, 3), (2, 7, 2)]
    assert [is_mixed(g) for g in sampled.groups].count(True) == 3
    assert sampled.groups[0] is first[0], "the first without a difference fills the batch"
    assert len(sampled.dropped) == 5


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 4), st.data())
def test_nothing_is_lost_and_the_batch_is_full(mixed: list[bool], rounds: int, data: st.DataObject) -> None:
    everything = [group(0.0, float(one)) for one in mixed]
    first = list(everything)

    def more(number: int, played: int, count: int) -> list[Group]:
        new = [group(0.0, float(data.draw(st.booleans()))) for _ in range(count)]
        everything.extend(new)
        return new

    sampled = fill_mixed(first, more, rounds)
    assert len(sampled.groups) == len(first)
    assert {id(g) for g in (*sampled.groups, *sampled.dropped)} == {id(g) for g in everything}
    assert not any(map(is_mixed, sampled.dropped)) or all(map(is_mixed, sampled.groups))
