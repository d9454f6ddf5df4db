"""Which reflections are trained on: a seeded share of every group (decision D23)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro_rl.random_streams import name_key


@dataclass(frozen=True, slots=True)
class ReflectionChoice:
    """Draws the same number of reflections in every group.

    A draw is a function of seed, iteration and group, so every process gets the same (decision D38).
    """

    share: float  # of a group's reflections, 0..1; 0: none, otherwise at least one a group
    seed: int  # of the run

    def chosen(self, iteration: int, group: int, size: int) -> frozenset[int]:
        """Indices (0..size-1) of the rollouts whose reflections are trained on; ``group``: its index."""
        if self.share == 0:
            return frozenset()
        if self.share == 1:
            return frozenset(range(size))
        rng = np.random.default_rng(name_key(self.seed, "reflections", iteration, group))
        return frozenset(int(i) for i in rng.permutation(size)[: max(1, round(self.share * size))])
