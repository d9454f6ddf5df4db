"""Evaluation: any checkpoint on a fixed, hashed panel, with intervals and progress quality."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig, dump_config
from repro_rl.demos.incontext import Shelf
from repro_rl.errors import ConfigError
from repro_rl.files import write_json, write_text
from repro_rl.policy.base import Policy
from repro_rl.policy.http import HttpPolicy
from repro_rl.rollout import trajectory_record
from repro_rl.rollout.counts import rollout_metrics
from repro_rl.rollout.record import write_records
from repro_rl.study.progress import progress_quality
from repro_rl.study.stats import wilson
from repro_rl.study.task_types import success_by_type
from repro_rl.train.build import (
    agent_policy,
    build_pool,
    build_prompts,
    forward_sampling,
    prompt_limit,
    reference_judge,
    reflect_sampling,
)
from repro_rl.train.contexts import check_context, is_chat, panel_jobs, play_jobs
from repro_rl.train.parallel import join
from repro_rl.train.run_folder import manifest, write_manifest
from repro_rl.types import Trajectory


def evaluate(
    config: RunConfig,
    model: Path,
    *,
    name: str,
    iteration: int | None = None,
    out: Path | None = None,
    judge: bool = True,
    policy: Policy | None = None,
    shelf: Shelf | None = None,
    on_total: Callable[[int], None] | None = None,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Play ``eval.tasks`` tasks of ``eval.split`` and judge every episode.

    Returns (and writes to ``out/eval/<name>.json``, trajectories beside it) success with a Wilson interval,
    the panel's label and digest, success per task type (``by_type``, None without types), and progress
    quality against ground truth. ``judge`` False leaves out the reflection; whose weights write it, those of
    ``model`` or the frozen ones of ``method.judge``, stands beside it. ``model``: a model folder, or
    ``api:MODEL``; a call that an API leaves without an answer makes its episode an error, which counts as not
    won. ``policy``: that model, loaded already; it is left open. ``shelf``: show demonstrations from it;
    ``demonstrations`` of the result counts the steps by what was shown. Raises TaskError when the panel is
    smaller than asked, CheckpointError when the model cannot be loaded, ApiError and BudgetError.
    """
    section = config.eval
    ranks = join(config)
    check_context(config, model)
    pool = build_pool(config)
    panel = pool.first.panel(section.split).head(section.tasks)
    own = policy is None
    policy = policy or agent_policy(config, model)
    judged_by = reference_judge(config) if judge else None
    prompts = build_prompts(config)
    if ranks.world > 1 and isinstance(policy, HttpPolicy):
        raise ConfigError("A model behind an API is evaluated by one process; see api.concurrency instead.")
    if out is not None and isinstance(policy, HttpPolicy) and not (out / "config.yaml").exists():
        write_text(out / "config.yaml", dump_config(config))  # nothing else makes this run folder
        write_manifest(
            out,
            manifest(
                config,
                agent=str(model),
                panels={section.split: panel.manifest()},
                environment=pool.first.describe(),
            ),
        )
    begin = time.perf_counter()
    if on_total is not None:
        on_total(len(ranks.mine(panel.ids)) * section.rollouts)

    def play(tasks: list[str]) -> list[Trajectory]:
        return play_jobs(
            config,
            pool,
            panel_jobs(tasks, section.rollouts),
            policy,
            prompts,
            forward_sampling(config, section.temperature),
            reflect_sampling(config, section.temperature) if judge else None,
            stream=("panel", section.seed),
            limit=None if shelf is None else prompt_limit(config, policy),
            demonstrations=None if shelf is None else shelf.texts(prompts),
            on_step=on_done,
            judged_by=judged_by,
        )

    trajectories = ranks.over_tasks(panel.ids, play, prompts=True)
    records = [trajectory_record(t, iteration or 0) for t in trajectories]
    won = sum(t.won for t in trajectories)
    low, high = wilson(won, len(trajectories))
    metrics = rollout_metrics(trajectories)
    by_type = success_by_type(((t.task_id, t.won) for t in trajectories), pool.first.task_type)
    result = {
        "checkpoint": str(model) if isinstance(policy, HttpPolicy) else model.name,
        "name": name,
        "iteration": iteration,
        "method": config.method.name,
        "context": config.prompt.context,
        "judge": "policy" if judged_by is None else "reference",
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
        "by_type": by_type or None,
        "score": metrics["rollout/score"],
        "length": metrics["rollout/length"],
        "invalid_rate": metrics["rollout/invalid_rate"],
        "format_rate": metrics["rollout/format_rate"],
        "errors": metrics["rollout/errors"],
        "progress": {which: progress_quality(records, which) for which in ("online", "retrospective")},
        "api": {"base_url": config.api.base_url, **policy.client.spending.summary()}
        if isinstance(policy, HttpPolicy)
        else None,
        "seconds": round(time.perf_counter() - begin, 2),
    }
    if shelf is not None:
        result["demonstrations"] = shelf.census(trajectories, prompts, first_turns=is_chat(config))
    if own and isinstance(policy, HttpPolicy):
        policy.client.close()
    if out is not None and ranks.first:
        write_records(out / "trajectories" / f"eval-{name}.jsonl.gz", records)
        write_json(out / "eval" / f"{name}.json", result)
    return result
