"""Prompts for the tiny model that share much, little or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from repro_rl.policy import TransformersPolicy
from support.models import load_cpu

PREFIX = " ".join(f"x{i}" for i in range(20))  # 20 tokens: longer than MIN_PREFIX
SHORT = ["a b c", "a", "d e f g h", "a b c", "left up a", "a b c"]
LONG = [f"{PREFIX} {text}" for text in SHORT]


def load_sharp(folder: str | Path, **settings: Any) -> TransformersPolicy:
    """The tiny model with sharper logits than a fresh one has."""
    policy = load_cpu(folder, **settings)
    with torch.no_grad():
        policy.model.model.embed_tokens.weight.mul_(3)
    return policy
