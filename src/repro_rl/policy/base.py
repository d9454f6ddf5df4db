"""What a rollout needs from a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from repro_rl.types import Completion, Ids


@dataclass(slots=True, frozen=True)
class SamplingSettings:
    """How to sample. Temperature 0 is greedy; log-probs are then those at temperature 1.

    ``top_p`` changes what is drawn, not what is reported: log-probs and entropy are those of the full
    distribution at this temperature, not of the one left after the filter.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


class Policy(Protocol):
    """A language model that completes prompts."""

    def encode(self, prompt: str) -> Ids:
        """Token ids the model is given for this prompt (chat template applied)."""
        ...

    def generate(
        self, prompts: Sequence[str], keys: NDArray[np.uint64], settings: SamplingSettings
    ) -> list[Completion]:
        """One completion for each prompt.

        ``keys[i]`` names the random stream of row i: the same key and prompt give the same text whatever else
        is in the batch (up to the last bits of floating point).
        """
        ...
