"""Playing demonstrations: of the expert, and of a noisy one that also fails (decision D28)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repro_rl.config import DemosSection, RunConfig
from repro_rl.demos.annotation import AnnotationContext, BatchAnnotator
from repro_rl.demos.annotators import ANNOTATORS, annotate_all
from repro_rl.envs.base import PLACEHOLDER, TextEnv
from repro_rl.errors import DataError
from repro_rl.random_streams import name_key
from repro_rl.rollout.episode import play_actions
from repro_rl.types import Trajectory

STALE_SHARE = 0.4  # of the random actions: drawn from all actions that were admissible so far


@dataclass(slots=True)
class CollectHooks:
    """Callbacks of a collection, and its notes."""

    on_done: Callable[[int], None] | None = None  # called with the number of episodes played
    on_label: Callable[[int], None] | None = None  # likewise, of episodes answered by a batch annotator
    notes: dict[str, Any] = field(default_factory=dict)  # receives the annotator's counts


def play(env: TextEnv, task_id: str, noise: float, rng: np.random.Generator) -> Trajectory:
    """One episode of the expert with a share ``noise`` of random actions.

    Where the expert has no plan (a dead end), actions are random. Some random actions were admissible only
    earlier in the episode: a trained policy tries impossible actions too, and its judge must know them.
    """
    admissible_so_far: dict[str, None] = {}

    def choose(info: dict[str, Any]) -> str:
        plan = None if rng.random() < noise else env.expert()
        admissible_so_far.update(dict.fromkeys(info["admissible"]))
        choices = list(admissible_so_far) if rng.random() < STALE_SHARE else info["admissible"]
        if plan is not None:
            return plan
        action = choices[int(rng.integers(len(choices)))] if choices else ""
        return _filled(action, info["goal"], rng)

    return play_actions(env, task_id, choose)


def _filled(action: str, goal: str, rng: np.random.Generator) -> str:
    """``search[<your query>]`` with one to four words of the goal instead of the hint."""
    words = re.findall(r"[\w'-]+", goal)
    if not words or not PLACEHOLDER.search(action):
        return action
    start = int(rng.integers(len(words)))
    return PLACEHOLDER.sub(lambda _: " ".join(words[start : start + 1 + int(rng.integers(4))]), action)


def collect_demos(
    env: TextEnv,
    task_ids: Sequence[str],
    demos: DemosSection,
    *,
    seed: int,
    config: RunConfig | None = None,
    hooks: CollectHooks | None = None,
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Expert episodes, and labelled ones of the noisy expert (``winning`` solved, ``failing`` unsolved).

    Tasks are drawn without replacement until they run out. Each step's ``online`` and the trajectory's
    ``reflection.values`` hold the labels; what a batch annotator leaves unlabelled is kept without them.
    ``config`` is for batch annotators such as "http". Raises DataError when the expert fails, or too
    few attempts of the noisy one win or fail as asked, or there are no tasks.
    """
    if not task_ids:
        raise DataError("There are no tasks to demonstrate: task_ids is empty.")
    hooks = hooks or CollectHooks()
    annotator = ANNOTATORS.get(demos.annotator)  # an unknown name must fail before anything is played
    if isinstance(annotator, BatchAnnotator):
        annotator.check(config)
    rng = np.random.default_rng(name_key(seed, "demos"))
    order = [task_ids[i] for i in rng.permutation(len(task_ids))]
    experts, used = _expert_episodes(env, order, demos.expert, rng, hooks)
    labelled = _noisy_episodes(
        env, order[used % len(order) :] + order[: used % len(order)], demos, rng, hooks
    )
    context = AnnotationContext(env.instructions, rng, config, hooks.on_label, hooks.notes)
    annotate_all((*experts, *labelled), demos.annotator, context)
    return experts, labelled


def _expert_episodes(
    env: TextEnv, order: Sequence[str], count: int, rng: np.random.Generator, hooks: CollectHooks
) -> tuple[list[Trajectory], int]:
    """``count`` solved episodes, and how many tasks they took. Raises DataError when the expert fails."""
    experts: list[Trajectory] = []
    unsolved: list[str] = []
    while len(experts) < count:
        task_id = order[(len(experts) + len(unsolved)) % len(order)]
        trajectory = play(env, task_id, 0.0, rng)
        if not trajectory.won:  # some tasks have no solution, such as WebShop goals nothing matches fully
            unsolved.append(task_id)
            if len(unsolved) > max(10, len(experts)):
                raise DataError(
                    f"the expert solves {len(experts)} of {len(experts) + len(unsolved)} tasks; run "
                    "'repro-rl doctor'",
                    record=unsolved[0],
                )
            continue
        experts.append(trajectory)
        if hooks.on_done is not None:
            hooks.on_done(1)
    return experts, count + len(unsolved)


def _noisy_episodes(
    env: TextEnv, order: Sequence[str], demos: DemosSection, rng: np.random.Generator, hooks: CollectHooks
) -> list[Trajectory]:
    """The episodes of the noisy expert. Raises DataError when too few attempts give such episodes."""
    episodes: list[Trajectory] = []
    missing = {True: demos.winning, False: demos.failing}
    attempts = 0
    while any(missing.values()):
        if attempts > 50 * (demos.winning + demos.failing) + 1000:
            raise DataError(
                f"{missing[True]} winning and {missing[False]} failing episodes could not be played in "
                f"{attempts} tries; change demos.noise, demos.winning or demos.failing"
            )
        noise = float(demos.noise[attempts % len(demos.noise)])
        trajectory = play(env, order[attempts % len(order)], noise, rng)
        attempts += 1
        if not missing[trajectory.won]:
            continue
        missing[trajectory.won] -= 1
        episodes.append(trajectory)
        if hooks.on_done is not None:
            hooks.on_done(1)
    return episodes


def summary(demos: Sequence[Trajectory]) -> dict[str, Any]:
    """Counts for the manifest and the terminal."""
    return {
        "episodes": len(demos),
        "won": sum(d.won for d in demos),
        "steps": sum(len(d.steps) for d in demos),
        "tasks": len({d.task_id for d in demos}),
        "unlabelled": sum(d.reflection is None or d.reflection.values is None for d in demos),
    }
