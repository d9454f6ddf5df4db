"""Metrics of played episodes and of task groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from repro_rl.errors import counted
from repro_rl.types import Group, Trajectory

_STEP = re.compile(r" (?:at|of) step \d+\b")  # that a reason names


def success_rate(trajectories: Sequence[Trajectory]) -> float:
    """Share of won episodes."""
    return float(np.mean([t.won for t in trajectories])) if trajectories else 0.0


def error_reasons(trajectories: Sequence[Trajectory]) -> Counter[str]:
    """How many episodes broke off, by reason."""
    return Counter(str(trajectory.error) for trajectory in trajectories if trajectory.failed)


def causes(reasons: Counter[str]) -> Counter[str]:
    """The counts of reasons that differ in nothing but the step, together."""
    together: Counter[str] = Counter()
    for reason, count in reasons.items():
        together[_STEP.sub("", reason, count=1)] += count
    return together


def common(reasons: Counter[str], most: int = 3) -> str:
    """The commonest reasons with their counts, as text."""
    shown = [f"{reason} ({counted(count, 'time')})" for reason, count in reasons.most_common(most)]
    more = len(reasons) - len(shown)
    return ", ".join(shown) + (f" and {counted(more, 'more reason')}" if more > 0 else "")


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
        "rollout/shortened_prompts": sum(bool(s.shortened) for s in steps) / total,
        "rollout/truncated_observations": sum(s.shortened == "observation" for s in steps) / total,
        "rollout/tokens": sum(s.completion.tokens for s in steps) / total,
        "rollout/entropy": sum(s.completion.entropy for s in steps) / total,
        "rollout/errors": float(sum(t.failed for t in trajectories)),
    }
    if online:
        metrics["rollout/online"] = sum(online) / len(online)
    return metrics


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Shares of groups with all-equal outcomes, reward terms per episode, quality of reflections."""
    trajectories = [t for g in groups for t in g.trajectories]
    count = max(len(trajectories), 1)
    metrics = {
        "rollout/equal_groups": float(np.mean([len({t.won for t in g.trajectories}) == 1 for g in groups])),
        "rollout/lost_groups": float(np.mean([not any(t.won for t in g.trajectories) for g in groups])),
    }
    names = sorted({name for t in trajectories for s in t.steps for name in s.terms})
    for name in names:
        metrics[f"reward/{name}"] = sum(s.terms.get(name, 0.0) for t in trajectories for s in t.steps) / count
    reflections = [t.reflection for t in trajectories if t.reflection is not None]
    if reflections:
        metrics["reflect/valid"] = sum(bool(r.values) for r in reflections) / len(reflections)
        metrics["reflect/shortened_prompts"] = float(np.mean([r.shortened for r in reflections]))
        metrics["reflect/tokens"] = float(np.mean([r.completion.tokens for r in reflections]))
        metrics["reflect/sampled_tokens"] = float(np.mean([r.completion.sampled for r in reflections]))
    for name, won in (("final_won", True), ("final_lost", False)):
        judged = [t.reflection for t in trajectories if t.reflection is not None and t.won is won]
        last = [r.values[-1] for r in judged if r.values]
        if last:
            metrics[f"reflect/{name}"] = float(np.mean(last))
    return metrics
