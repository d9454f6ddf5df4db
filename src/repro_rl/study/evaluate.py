"""Evaluation: any checkpoint on a fixed, hashed panel, with intervals and progress quality."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.files import write_json
from repro_rl.rollout import reflect, trajectory_record
from repro_rl.rollout.panel_play import play_panel, rollout_metrics
from repro_rl.rollout.record import write_records
from repro_rl.study.progress import progress_quality
from repro_rl.study.stats import wilson
from repro_rl.train.build import build_pool, build_prompts, forward_sampling, load_policy, reflect_sampling


def evaluate(
    config: RunConfig,
    model: Path,
    *,
    name: str,
    iteration: int | None = None,
    out: Path | None = None,
    judge: bool = True,
    on_total: Callable[[int], None] | None = None,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Play ``eval.tasks`` tasks of ``eval.split`` and judge every episode.

    Returns (and writes to ``out/eval/<name>.json``, trajectories beside it) success with a Wilson interval,
    the panel's label and digest, and progress quality against ground truth. ``judge`` False leaves out the
    reflection. Raises TaskError when the panel is smaller than asked, CheckpointError when the model cannot
    be loaded.
    """
    section = config.eval
    pool = build_pool(config)
    panel = pool.first.panel(section.split).head(section.tasks)
    policy = load_policy(config, model)
    prompts = build_prompts(config)
    begin = time.perf_counter()
    if on_total is not None:
        on_total(len(panel) * section.rollouts)
    trajectories = play_panel(
        pool,
        panel,
        policy,
        prompts,
        forward_sampling(config, section.temperature),
        rollouts=section.rollouts,
        seed=section.seed,
        max_prompt_tokens=config.prompt.max_prompt_tokens,
        on_done=on_done,
    )
    if judge:
        reflect(
            trajectories,
            policy,
            prompts,
            reflect_sampling(config, section.temperature),
            instructions=pool.first.instructions,
            stream=("panel", section.seed),
            max_prompt_tokens=config.prompt.max_reflect_tokens,
        )
    records = [trajectory_record(t, iteration or 0) for t in trajectories]
    won = sum(t.won for t in trajectories)
    low, high = wilson(won, len(trajectories))
    metrics = rollout_metrics(trajectories)
    result = {
        "checkpoint": model.name,
        "name": name,
        "iteration": iteration,
        "method": config.method.name,
        "run_seed": config.seed,
        "panel": panel.label(),
        "digest": panel.digest,
        "split": section.split,
        "tasks": len(panel),
        "rollouts_per_task": section.rollouts,
        "temperature": section.temperature,
        "seed": section.seed,
        "episodes": len(trajectories),
        "won": won,
        "success": won / len(trajectories),
        "low": low,
        "high": high,
        "score": metrics["rollout/score"],
        "length": metrics["rollout/length"],
        "invalid_rate": metrics["rollout/invalid_rate"],
        "format_rate": metrics["rollout/format_rate"],
        "errors": metrics["rollout/errors"],
        "progress": {which: progress_quality(records, which) for which in ("online", "retrospective")},
        "seconds": round(time.perf_counter() - begin, 2),
    }
    if out is not None:
        write_records(out / "trajectories" / f"eval-{name}.jsonl.gz", records)
        write_json(out / "eval" / f"{name}.json", result)
    return result
