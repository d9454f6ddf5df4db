"""Qwen2.5-0.5B's shape with random weights and the real tokenizer, through both stages, on a CPU.

Not in the default suite: ``pytest -m full_size -n 0`` (needs Qwen's BPE ranks, see
policy/tokens/test_qwen_tokenizer.py). Without bfloat16 instructions an update takes minutes.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.demos import collect_demos, save_demos
from repro_rl.policy.loading.qwen_shapes import build_untrained
from repro_rl.train import run_training, run_warmup
from support.models import load_cpu
from support.qwen import real_ranks

pytestmark = pytest.mark.full_size

SETTINGS = [
    "env.settings={style: grid, solution: [1, 2], max_steps: 2, train_rooms: 16, validation_rooms: 8, "
    "test_rooms: 8}",
    "policy={device: cpu, threads: 1, dtype: bfloat16}",
    "prompt={think: off, action_tokens: 24, reflect_new_tokens: 32}",
    "demos={expert: 2, mistakes: [0.0], wandering: 0, winning: 1, failing: 2, labelled_mistakes: [0.5]}",
    "warmup={updates: 2, forward_from: 0, forward_batch: 1, reflect_batch: 1, lr_warmup: 1}",
    "train={iterations: 2, groups: 1, group_size: 2, minibatches: 1, micro_tokens: 2048, validate_every: 0, "
    "kl: {form: k3}}",
    "eval={validation_tasks: 1}",
]


def test_both_stages_at_full_size(tmp_path):
    model = build_untrained(tmp_path / "base", "Qwen/Qwen2.5-0.5B", real_ranks())
    config = load_config("paper/sokoban-4b", [*SETTINGS, f"policy.model={model}"])
    env = make("sokoban", **config.env.settings)
    experts, labelled = collect_demos(env, env.panel("train").ids, config.demos, seed=0)
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
        assert row["rollout/shortened_prompts"] == 0
    folder = tmp_path / "run" / "checkpoints" / "00002"
    policy = load_cpu(folder)
    assert policy.codec.encode("Hi")[-3:] == (151_644, 77_091, 198)
