"""Playing demonstrations: the expert, and a noisy one whose failures show the judge what failing is."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repro_rl.config import RunConfig
from repro_rl.demos.annotators import ANNOTATORS, AnnotationContext, BatchAnnotator, annotate_all
from repro_rl.envs.base import PLACEHOLDER, TextEnv
from repro_rl.errors import DataError
from repro_rl.random_streams import name_key
from repro_rl.rollout.episode import add_step, begin_trajectory
from repro_rl.types import Trajectory, no_completion

STALE = 0.4  # share of the random actions drawn from all actions seen so far


def play(env: TextEnv, task_id: str, noise: float, rng: np.random.Generator) -> Trajectory:
    """One episode of the expert with a share ``noise`` of random actions.

    Where the expert sees no plan (a dead end), actions are random. Some random actions were admissible only
    earlier in the episode: a trained policy tries impossible actions too, and its judge must have seen some.
    """
    seen: dict[str, None] = {}
    observation, info = env.reset(options={"task": task_id})
    trajectory = begin_trajectory(task_id, 0, observation, info)
    nothing, ended = no_completion(), False
    while not ended:
        plan = None if rng.random() < noise else env.expert()
        seen.update(dict.fromkeys(info["admissible"]))
        choices = list(seen) if rng.random() < STALE else info["admissible"]
        action = plan if plan is not None else choices[int(rng.integers(len(choices)))] if choices else ""
        if plan is None:
            action = _filled(action, info["goal"], rng)
        before, anchor = observation, info["anchor"]
        result = env.step(action)
        ended = add_step(trajectory, result, before=before, anchor=anchor, action=action, completion=nothing)
        observation, info = result[0], result[4]
    return trajectory


def _filled(action: str, goal: str, rng: np.random.Generator) -> str:
    """``search[<your query>]`` with one to four words of the goal in the place of the hint."""
    words = re.findall(r"[\w'-]+", goal)
    if not words or not PLACEHOLDER.search(action):
        return action
    start = int(rng.integers(len(words)))
    return PLACEHOLDER.sub(lambda _: " ".join(words[start : start + 1 + int(rng.integers(4))]), action)


def collect_demos(
    env: TextEnv,
    task_ids: Sequence[str],
    *,
    expert: int,
    winning: int,
    failing: int,
    noise: Sequence[float],
    annotator: str,
    seed: int,
    config: RunConfig | None = None,
    on_done: Callable[[int], None] | None = None,
    on_label: Callable[[int], None] | None = None,
    notes: dict[str, Any] | None = None,
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Expert episodes, and labelled ones of the noisy expert (``winning`` solved and ``failing`` unsolved).

    Tasks are drawn without replacement until they run out. Each step's ``online`` and the trajectory's
    ``reflection.values`` hold the labels; what a batch annotator leaves unlabelled is kept without them.
    ``config`` is for batch annotators such as "http"; ``on_label`` hears of their settled episodes, and
    ``notes`` gets their counts. Raises DataError when the expert fails or the episodes cannot be had.
    """
    found = ANNOTATORS.get(annotator)  # an unknown name must fail before anything is played
    if isinstance(found, BatchAnnotator):
        found.check(config)
    rng = np.random.default_rng(name_key(seed, "demos"))
    order = [task_ids[i] for i in rng.permutation(len(task_ids))]
    experts: list[Trajectory] = []
    unsolved: list[str] = []
    while len(experts) < expert:
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
        if on_done is not None:
            on_done(1)
    labelled: list[Trajectory] = []
    wanted = {True: winning, False: failing}
    attempts = 0
    while any(wanted.values()):
        if attempts > 50 * (winning + failing) + 1000:
            raise DataError(
                f"{wanted[True]} winning and {wanted[False]} failing episodes could not be had after "
                f"{attempts} tries; change demos.noise, demos.winning or demos.failing"
            )
        trajectory = play(
            env,
            order[(expert + len(unsolved) + attempts) % len(order)],
            float(noise[attempts % len(noise)]),
            rng,
        )
        attempts += 1
        if not wanted[trajectory.won]:
            continue
        wanted[trajectory.won] -= 1
        labelled.append(trajectory)
        if on_done is not None:
            on_done(1)
    context = AnnotationContext(env.instructions, rng, config, on_label, {} if notes is None else notes)
    annotate_all((*experts, *labelled), annotator, context)
    return experts, labelled


def summary(demos: Sequence[Trajectory]) -> dict[str, Any]:
    """Counts for the manifest and the terminal."""
    return {
        "episodes": len(demos),
        "won": sum(d.won for d in demos),
        "steps": sum(len(d.steps) for d in demos),
        "tasks": len({d.task_id for d in demos}),
        "unlabelled": sum(d.reflection is None or d.reflection.values is None for d in demos),
    }
