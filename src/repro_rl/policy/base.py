"""What a rollout needs from a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from repro_rl.types import Completion, Ids


@dataclass(slots=True, frozen=True)
class SamplingSettings:
    """How to sample. Temperature 0 is greedy; log-probs are then those at temperature 1.

    ``top_p`` changes what is drawn, not what is reported: log-probs and entropy are those of the full
    distribution at this temperature, not of the one left after the filter. A vLLM sampler can only report
    those after the filter.
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


class Sampler(Policy, Protocol):
    """A policy whose weights follow a trainer's."""

    def before_update(self) -> None:
        """Rollouts are over for now: room may be made for the update."""
        ...

    def weights_changed(self) -> None:
        """Take over the trainer's present weights; what was computed with the old ones is dropped."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a figure sampled by it depends on, for the manifest."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...
