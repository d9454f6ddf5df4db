"""The whole method on a small generated shop: every stage runs, fits, and leaves what the next one needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_rl.cli.evaluate import run_eval_stage
from repro_rl.cli.stages import run_demos_stage, run_train_stage, run_warmup_stage
from repro_rl.config import load_config
from repro_rl.rollout.record import read_trajectories

SMALL = [
    "env.settings={style: words, generated: [100, 1], max_steps: 10}",
    "policy={model: tiny, device: cpu, tiny: {hidden: 32, heads: 2, kv_heads: 2, ffn: 64, positions: 512}}",
    "demos={expert: 30, winning: 30, failing: 30, labelled_mistakes: [0.5], agent: planner, "
    "mistakes: [0.0], wandering: 0}",
    "warmup={updates: 60, forward_from: 20, forward_batch: 16, reflect_batch: 8, lr: 0.01}",
    "train={iterations: 2, groups: 4, group_size: 4, epochs: 1, minibatches: 2, lr: 0.001}",
    "eval={tasks: 20, validation_tasks: 10}",
    "alarms={}",
]


@pytest.mark.slow
def test_every_stage_runs_on_a_shop(tmp_path: Path) -> None:
    settings = load_config("webshop-tiny", SMALL)
    demos = run_demos_stage(settings, tmp_path / "demos")
    experts = list(read_trajectories(demos / "expert.jsonl.gz"))
    assert len(experts) == 30
    assert all(episode["won"] and episode["score"] == 1.0 for episode in experts)
    assert all(episode["steps"][-1]["truth"] == 1.0 for episode in experts)
    model = run_warmup_stage(settings, demos, tmp_path / "warmup")
    settings = load_config("webshop-tiny", [*SMALL, f"train.init={model}"])
    run = run_train_stage(settings, tmp_path / "run")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(0 <= row["rollout/score"] <= 1 and row["rollout/errors"] == 0 for row in rows)
    manifest = json.loads((run / "manifest.json").read_text())
    assert "title nouns by" in manifest["environment"]
    assert manifest["panels"]["train"]["label"].startswith("webshop-generated-100-synthetic/train[")
    result = run_eval_stage(settings, run, "last", run)
    assert result["panel"].startswith("webshop-generated-100-synthetic/test[20]@")
    assert result["errors"] == 0


def test_the_longest_prompts_of_the_words_style_fit() -> None:
    """Positions of the tiny model bound a whole episode's reflection."""
    from repro_rl.envs.webshop.words import vocabulary

    settings = load_config("webshop-tiny", [])
    row, query = 1 + 10, 10  # a results page; a search with all slots and its brackets
    steps = settings.prompt.reflect_new_tokens // 2
    assert row + query < settings.prompt.max_prompt_tokens
    assert 3 + steps * (query + 1 + 11) + settings.prompt.reflect_new_tokens < settings.policy.tiny.positions
    assert len(set(vocabulary())) < 1_500
