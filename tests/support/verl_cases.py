"""What the tests without verl and the smoke run with it share: seeds as servers take them, a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repro_rl.integrations.verl.session import SEED_BITS
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

CPU_RECIPE = Path(__file__).with_name("verl_sokoban_tiny_cpu.yaml")
# The tiny model has no chat template, and verl's supervised trainer needs one.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}act {{ m.content }}{% else %} progress {{ m.content }}"
    " <eos>{% endif %}{% endfor %}{% if add_generation_prompt %} progress {% endif %}"
)


class ServerSeeds(TokenPolicy):
    """A policy with the 63-bit seeds that generation servers take, in place of our 64-bit keys."""

    def __init__(self, policy: TokenPolicy):
        self.policy, self.codec = policy, policy.codec

    def generate_ids(
        self,
        encoded: Sequence[Ids],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        return self.policy.generate_ids(encoded, keys & np.uint64(SEED_BITS), settings)
