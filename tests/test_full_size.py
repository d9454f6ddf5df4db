"""Qwen2.5-0.5B's shape with random weights and the real tokenizer, through both stages, on a CPU.

Not in the default suite: ``pytest -m full_size -n 0`` (needs Qwen's BPE ranks, see test_qwen.py; docs/qwen.md
says how long it takes and how much memory).
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.demos import collect_demos, save_demos
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.qwen_shapes import build_untrained
from repro_rl.train.loop import run_training
from repro_rl.train.warmup import run_warmup

pytestmark = pytest.mark.full_size

SETTINGS = [
    "env.settings={style: grid, solution: [1, 2], max_steps: 2, train_rooms: 16, validation_rooms: 8, "
    "test_rooms: 8}",
    "policy={device: cpu, threads: 1, dtype: bfloat16}",
    "prompt={think: off, action_tokens: 24, reflect_new_tokens: 32}",
    "warmup={updates: 2, forward_batch: 1, reflect_batch: 1, lr_warmup: 1}",
    "train={iterations: 2, groups: 1, group_size: 2, minibatches: 1, micro_tokens: 2048, eval_every: 0}",
    "eval={validation_tasks: 1}",
]


def test_both_stages_at_full_size(tmp_path):
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    ranks = Path(os.environ.get("REPRO_RL_SHARED_DATA", beside)) / "qwen" / "qwen.tiktoken"
    if not ranks.is_file():
        pytest.skip("Qwen's BPE ranks are not here; set REPRO_RL_SHARED_DATA to the folder that has them")
    model = build_untrained(tmp_path / "base", "Qwen/Qwen2.5-0.5B", ranks)
    config = load_config("paper/sokoban-4b", [*SETTINGS, f"policy.model={model}"])
    env = make("sokoban", **config.env.settings)
    experts, labelled = collect_demos(
        env,
        env.panel("train").ids,
        expert=2,
        winning=1,
        failing=2,
        noise=(1.0,),
        annotator="oracle",
        seed=0,
    )
    save_demos(tmp_path / "demos", experts, labelled)
    warm: list[dict[str, Any]] = []
    start = run_warmup(config, tmp_path / "demos", tmp_path / "warm", warm.append)
    # Random weights know nothing: the first loss is about that of a uniform guess over the vocabulary.
    assert warm[0]["warmup/forward_loss"] == pytest.approx(math.log(151_936), rel=0.1)
    rows: list[dict[str, Any]] = []
    config = load_config("paper/sokoban-4b", [*SETTINGS, f"policy.model={model}", f"train.init={start}"])
    run = run_training(config, tmp_path / "run", rows.append)
    assert [row["iteration"] for row in rows] == [1, 2]
    assert sum(p.numel() for p in run.policy.model.parameters()) == 494_032_768
    for row in rows:
        assert row["update/skipped"] == 0
        assert row["rollout/length"] == 2
        assert row["rollout/truncated_prompts"] == 0
    folder = tmp_path / "run" / "checkpoints" / "00002"
    policy = TransformersPolicy.load(folder, device="cpu")
    assert policy.encode("Hi")[-3:] == (151_644, 77_091, 198)
