"""Random draws that are the same on every machine and in every version of Python."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


class IntegerDraws(ABC):
    """Random choices made of random integers."""

    @abstractmethod
    def below(self, bound: int) -> int:
        """An integer in 0..bound-1."""

    def between(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Iterable[T], count: int) -> list[T]:
        """``count`` of the items, in random order."""
        rest = list(items)
        for i in range(count):
            j = i + self.below(len(rest) - i)
            rest[i], rest[j] = rest[j], rest[i]
        return rest[:count]

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """All items, in random order."""
        rest = list(items)
        return self.sample(rest, len(rest))


class Draws(IntegerDraws):
    """Draws from ``Random.random`` alone: the only sequence that Python promises to keep."""

    def __init__(self, seed: int | str):
        self._random = random.Random(seed).random

    def below(self, bound: int) -> int:
        return int(self._random() * bound)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability
