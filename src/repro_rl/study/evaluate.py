"""Evaluation: any checkpoint or API model on a fixed, hashed panel, with intervals and progress quality."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import ApiSection, RunConfig, dump_config
from repro_rl.config.trust import signed_config
from repro_rl.demos.incontext import InContextDemos
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ConfigError
from repro_rl.files import write_json, write_text
from repro_rl.policy.base import Policy
from repro_rl.policy.http import HttpPolicy
from repro_rl.policy.hub import is_hub_name
from repro_rl.rollout import Actor, Judge, PlayOptions, trajectory_record
from repro_rl.rollout.counts import failures, rollout_metrics
from repro_rl.rollout.record import write_records
from repro_rl.run.folder import manifest, write_manifest
from repro_rl.run.lineage import check_context
from repro_rl.run.preflight import check_panel
from repro_rl.run.setup import Setup, set_up
from repro_rl.run.validation import panel_requests
from repro_rl.study.progress import progress_quality
from repro_rl.study.stats import wilson
from repro_rl.study.task_types import success_by_type
from repro_rl.types import Trajectory

MAX_REASONS = 20  # of broken episodes, that a result names


@dataclass(slots=True)
class EvalRequest:
    """What is evaluated, and where its result goes."""

    name: str  # of the result file
    iteration: int | None = None  # of the checkpoint, where it has one
    out: str | Path | None = None  # run folder for the result and the trajectories
    judge: bool = True  # also reflect, and measure progress quality
    demonstrations: InContextDemos | None = None  # to show in prompts


@dataclass(slots=True)
class EvalHooks:
    """Called with counts of episodes, for a progress bar."""

    on_total: Callable[[int], None] | None = None
    on_done: Callable[[int], None] | None = None


def evaluate(
    config: RunConfig,
    model: str | Path,
    request: EvalRequest,
    *,
    policy: Policy | None = None,
    hooks: EvalHooks | None = None,
) -> dict[str, Any]:
    """Play ``eval.tasks`` tasks of ``eval.split`` and judge every episode.

    ``model``: a model folder or hub name, or ``api:MODEL``; a call that an API leaves without an answer fails
    its episode, which counts as not won; when no call at all got a text, that is an ApiError and there is no
    result. ``policy``: that model, loaded already; it is left open.

    Returns (and writes to ``out/eval/<name>.json``, trajectories beside it) success with a Wilson interval,
    the panel's label and digest, success per task type (``by_type``, None without types), progress quality
    against ground truth, and as ``judge`` whose weights reflected. With demonstrations, it counts the steps
    by what was shown. Raises TaskError when the panel is smaller than asked, CheckpointError when the model
    cannot be loaded, ApiError and BudgetError.
    """
    setup, model = set_up(config), Path(model)
    check_context(config.prompt, model)
    check_panel(setup.pool.first.panel, config.eval.split, config.eval.tasks, "eval.tasks")
    if policy is not None:
        return _evaluate(setup, model, policy, request, hooks or EvalHooks())
    with closing(setup.agent(model)) as opened:
        return _evaluate(setup, model, opened, request, hooks or EvalHooks())


def _evaluate(
    setup: Setup, model: Path, policy: Policy, request: EvalRequest, hooks: EvalHooks
) -> dict[str, Any]:
    """See ``evaluate``."""
    config = setup.config
    out = None if request.out is None else Path(request.out)
    panel = setup.panel(config.eval.split, config.eval.tasks)
    api = policy if isinstance(policy, HttpPolicy) else None
    if api is not None and setup.ranks.world > 1:
        raise ConfigError("A model behind an API is evaluated by one process; see api.concurrency instead.")
    foreign = api is not None or is_hub_name(model)
    if foreign and out is not None and setup.ranks.first:
        _open_foreign_run(setup, out, model, panel)
    begin = time.perf_counter()
    before = None if api is None else api.client.patience.tally
    trajectories, judged_by = _play(setup, policy, panel, request, hooks)
    if api is not None and before is not None:
        api.client.patience.check(before)
    records = [trajectory_record(t, request.iteration or 0) for t in trajectories]
    result = {
        "checkpoint": str(model) if foreign else model.name,
        "name": request.name,
        "iteration": request.iteration,
        "judge": judged_by,
        **_settings_of(config, panel),
        **_outcome(setup, trajectories),
        "progress": {which: progress_quality(records, which) for which in ("online", "retrospective")},
        "api": None if api is None else _usage(config.api, api),
        "seconds": round(time.perf_counter() - begin, 2),
    }
    if request.demonstrations is not None:
        once = setup.context(policy.text).shows_once()
        result["demonstrations"] = request.demonstrations.count_steps(
            trajectories, setup.prompts, shown_once=once
        )
    if out is not None and setup.ranks.first:
        write_records(out / "trajectories" / f"eval-{request.name}.jsonl.gz", records)
        write_json(out / "eval" / f"{request.name}.json", result)
    return result


def _play(
    setup: Setup, policy: Policy, panel: TaskPanel, request: EvalRequest, hooks: EvalHooks
) -> tuple[list[Trajectory], str]:
    """All episodes of the panel, shared between ranks, and whose weights judged them."""
    section = setup.config.eval
    context = setup.context(policy.text)
    frozen = setup.frozen_judge() if request.judge else None
    actor = Actor(policy, setup.prompts, setup.action_sampling(section.temperature))
    judge = Judge(setup.reflection_sampling(section.temperature), frozen) if request.judge else None
    shown = request.demonstrations
    options = PlayOptions(
        stream=("panel", section.seed),
        demonstrations=None if shown is None else shown.texts(setup.prompts),
        on_done=hooks.on_done,
    )
    if hooks.on_total is not None:
        hooks.on_total(len(setup.ranks.own_share(panel.ids)) * section.rollouts)

    def play(tasks: list[str]) -> list[Trajectory]:
        return context.play(panel_requests(tasks, section.rollouts), actor, judge, options)

    trajectories = setup.ranks.play_tasks(panel.ids, play, prompts=True)
    return trajectories, "policy" if frozen is None else "reference"


def _settings_of(config: RunConfig, panel: TaskPanel) -> dict[str, Any]:
    """What a figure depends on."""
    section = config.eval
    return {
        "method": config.method.name,
        "context": config.prompt.context,
        "run_seed": config.seed,
        "panel": panel.label(),
        "digest": panel.digest,
        "split": section.split,
        "tasks": len(panel),
        "rollouts_per_task": section.rollouts,
        "temperature": section.temperature,
        "seed": section.seed,
    }


def _outcome(setup: Setup, trajectories: list[Trajectory]) -> dict[str, Any]:
    """Success with its interval, also by task type, and the counts that explain it."""
    won = sum(t.won for t in trajectories)
    low, high = wilson(won, len(trajectories))
    metrics = rollout_metrics(trajectories)
    by_type = success_by_type(((t.task_id, t.won) for t in trajectories), setup.pool.first.task_type)
    return {
        "episodes": len(trajectories),
        "won": won,
        "success": won / len(trajectories),
        "low": low,
        "high": high,
        "by_type": by_type or None,
        "failures": dict(failures(trajectories).most_common(MAX_REASONS)),
        **{
            name: metrics[f"rollout/{name}"]
            for name in ("score", "length", "invalid_rate", "format_rate", "errors")
        },
    }


def _open_foreign_run(setup: Setup, out: Path, model: Path, panel: TaskPanel) -> None:
    """The run folder of a model behind an API or on the hub, which nothing else makes."""
    if (out / "config.yaml").exists():
        return
    config = setup.config
    write_text(out / "config.yaml", signed_config(dump_config(config)))
    content = manifest(
        config,
        agent=str(model),
        panels={config.eval.split: panel.manifest()},
        environment=setup.pool.first.describe(),
    )
    write_manifest(out, content)


def _usage(section: ApiSection, policy: HttpPolicy) -> dict[str, Any]:
    return {"base_url": section.base_url, **policy.client.spending.summary()}
