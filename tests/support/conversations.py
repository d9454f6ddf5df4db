"""Small Sokoban conversations: environment, prompts, limits, and a tiny policy that knows their words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_rl.config import PolicySection, TinySection
from repro_rl.policy import TransformersPolicy, build_tiny
from repro_rl.rollout import EnvPool
from repro_rl.rollout.context import ContextLimits
from repro_rl.text import PromptBuilder, TextFormat

SOKOBAN: dict[str, Any] = {
    "style": "relative", "train_rooms": 6, "validation_rooms": 2, "test_rooms": 2, "solution": (3, 6),
    "max_steps": 6,
}  # fmt: skip
COMPACT = PromptBuilder(TextFormat("compact", progress=True, think="off"))
LIMITS = ContextLimits(prompt=400, reflect_prompt=1, conversation=500, action=3, reflection=13, cache=10**6)


def tiny_policy(folder: Path, pool: EnvPool, *, packed: bool) -> TransformersPolicy:
    """An untrained policy of two layers, built into ``folder``."""
    env = pool.first
    words = {*env.vocabulary(), *COMPACT.words(env.max_steps)}
    size = TinySection(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, positions=512)
    build_tiny(folder, words, size, seed=5)
    return TransformersPolicy.load(folder, PolicySection(device="cpu", packed=packed))
