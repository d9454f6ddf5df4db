"""Demonstrations of small Sokoban rooms."""

from __future__ import annotations

from typing import Any

from repro_rl.config import DemosSection
from repro_rl.demos import CollectHooks, collect_demos
from repro_rl.envs.base import TextEnv
from repro_rl.rollout import trajectory_record
from repro_rl.types import Trajectory

PLANNED: dict[str, Any] = {"agent": "planner", "mistakes": (0.0,), "wandering": 0}  # shortest plans alone
Demos = tuple[list[Trajectory], list[Trajectory]]


def collect(env: TextEnv, *, seed: int = 0, hooks: CollectHooks | None = None, **settings: Any) -> Demos:
    """20 episodes labelled by the oracle; ``settings`` of the section ``demos`` replace these."""
    section: dict[str, Any] = {"expert": 8, "winning": 5, "failing": 7, "labelled_mistakes": (0.5, 1.0)}
    demos = DemosSection(**section | PLANNED | settings)
    return collect_demos(env, env.panel("train").ids, demos, seed=seed, hooks=hooks)


def records(demos: Demos) -> list[dict[str, Any]]:
    return [trajectory_record(t, 0) for part in demos for t in part]
