"""Rehearsal: the warmup's labelled reflections, imitated a little beside every RL mini-batch.

RL pays the reflection for the outcome alone, and a judge trained on that forgets the states
(docs/results-sokoban.md). Rehearsal shows it the labels of stage 1 again; no RL episode is ever labelled
(decision D25).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from repro_rl.demos.store import is_labelled
from repro_rl.dist.ranks import ALONE, Ranks
from repro_rl.errors import PreflightError
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.random_streams import name_key
from repro_rl.rollout.context import Context
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.batch import Batch, Collation
from repro_rl.train.imitation import draw_halves, imitation_batches
from repro_rl.types import TokenKind, Trajectory


@dataclass(slots=True)
class Rehearsal:
    """Draws labelled reflections, half of won episodes, as a pure function of seed, iteration and step.

    Raises PreflightError when no episode is labelled, and when one may be longer than the limits.
    """

    episodes: Sequence[Trajectory]
    context: Context
    prompts: PromptBuilder
    codec: TextCodec
    count: int  # reflections an optimizer step, ``method.rehearsal``
    coef: float  # weight of their loss, ``method.rehearsal_coef``
    micro_tokens: int
    seed: int
    ranks: Ranks = ALONE  # each computes a part of the rows of a step
    won: list[Trajectory] = field(init=False)  # those of the labelled episodes that were won
    lost: list[Trajectory] = field(init=False)

    def __post_init__(self) -> None:
        labelled = [t for t in self.episodes if is_labelled(t)]
        if not labelled:
            raise PreflightError("method.rehearsal needs labelled episodes, and train.demos has none.")
        for episode in labelled:  # not within an update
            self.context.longest_reflection_demo(episode, self.prompts, self.codec)
        self.won, self.lost = [t for t in labelled if t.won], [t for t in labelled if not t.won]

    def batches(self, iteration: int, step: int, collation: Collation) -> list[Batch]:
        """``count`` reflections for one optimizer step, as micro-batches.

        Their losses add up to ``coef`` times the mean over the tokens.
        """
        rng = np.random.default_rng(name_key(self.seed, "rehearsal", iteration, step))
        drawn = draw_halves(self.won, self.lost, self.count, rng)
        samples = [
            self.context.reflection_demo(episode, self.prompts, self.codec, self.seed, iteration, step, n)
            for n, episode in enumerate(drawn)
        ]
        coefs = {TokenKind.REFLECT: self.coef}
        return imitation_batches(samples, coefs, collation, self.micro_tokens, self.ranks)
