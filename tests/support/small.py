"""Small settings and the words of a tiny model, shared by the tests of every package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = (*"abcdefghijklmnop", "left", "right", "up", "down", "act", "progress", *(f"x{i}" for i in range(30)))

ROOMS = (
    "env.settings={style: relative, train_rooms: 16, validation_rooms: 8, test_rooms: 8, solution: [2, 5], "
    "max_steps: 6}"
)
# Whole sections, so that the recipes can change without changing what is tested.
SMALL = [
    ROOMS,
    "policy={model: tiny, device: cpu, tiny: {hidden: 32, heads: 2, kv_heads: 2, ffn: 64, positions: 256}}",
    "prompt={style: compact, resolution: 50, action_tokens: 3, reflect_new_tokens: 34}",
    "warmup={updates: 100, forward_from: 0, forward_batch: 16, reflect_batch: 32, lr: 0.01, lr_end: 1.0}",
    "method=repro",
    "method.judge_pool=none",
    "method.judge_temperature=null",
    "train={epochs: 2, minibatches: 2, lr: 0.001, lr_warmup: 2}",
    "alarms={}",
    "eval={validation_tasks: 8}",
]


@dataclass
class WarmStart:
    """A short warm start on 16 easy rooms: it acts badly, and most of its reflections can be read."""

    settings: list[str]  # overrides for load_config; methods and sizes are added to them
    demos: Path
    run: Path
    model: Path
    rows: list[dict[str, Any]]
