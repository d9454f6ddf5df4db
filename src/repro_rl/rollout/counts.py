"""The plain counts of played episodes that every caller needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repro_rl.types import Group, Trajectory


def success_rate(trajectories: Sequence[Trajectory]) -> float:
    """Share of won episodes."""
    return float(np.mean([t.won for t in trajectories])) if trajectories else 0.0


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means over episodes or steps; docs/metrics.md explains each."""
    steps = [s for t in trajectories for s in t.steps]
    count, total = max(len(trajectories), 1), max(len(steps), 1)
    online = [s.online for s in steps if s.online is not None]
    metrics = {
        "rollout/success": success_rate(trajectories),
        "rollout/score": sum(t.score for t in trajectories) / count,
        "rollout/return": sum(t.env_return for t in trajectories) / count,
        "rollout/length": len(steps) / count,
        "rollout/invalid_rate": sum(not s.valid for s in steps) / total,
        "rollout/format_rate": sum(not s.defects for s in steps) / total,
        "rollout/cut_off": sum(not s.completion.finished for s in steps) / total,
        "rollout/truncated_prompts": sum(bool(s.shortened) for s in steps) / total,
        "rollout/truncated_observations": sum(s.shortened == "observation" for s in steps) / total,
        "rollout/tokens": sum(s.completion.tokens for s in steps) / total,
        "rollout/entropy": sum(s.completion.entropy for s in steps) / total,
        "rollout/errors": float(sum(t.error is not None for t in trajectories)),
    }
    if online:
        metrics["rollout/online"] = sum(online) / len(online)
    return metrics


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What groups can teach: share with all-equal outcomes, reward terms per episode, reflection quality."""
    trajectories = [t for g in groups for t in g.trajectories]
    count = max(len(trajectories), 1)
    metrics = {
        "rollout/equal_groups": float(np.mean([len({t.won for t in g.trajectories}) == 1 for g in groups])),
        "rollout/failed_groups": float(np.mean([not any(t.won for t in g.trajectories) for g in groups])),
    }
    names = sorted({name for t in trajectories for s in t.steps for name in s.terms})
    for name in names:
        metrics[f"reward/{name}"] = sum(s.terms.get(name, 0.0) for t in trajectories for s in t.steps) / count
    reflected = [t for t in trajectories if t.reflection is not None]
    if reflected:
        valid = [t for t in reflected if t.reflection is not None and t.reflection.values]
        metrics["reflect/valid"] = len(valid) / len(reflected)
        metrics["reflect/truncated_prompts"] = float(
            np.mean([t.reflection.shortened for t in reflected if t.reflection is not None])
        )
        metrics["reflect/tokens"] = float(
            np.mean([t.reflection.completion.tokens for t in reflected if t.reflection is not None])
        )
        for name, won in (("final_won", True), ("final_lost", False)):
            last = [
                t.reflection.values[-1]
                for t in valid
                if t.won is won and t.reflection and t.reflection.values
            ]
            if last:
                metrics[f"reflect/{name}"] = float(np.mean(last))
    return metrics
