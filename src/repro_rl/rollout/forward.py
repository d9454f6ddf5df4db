"""The forward pass: all live episodes step together and leave the batch when done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repro_rl.envs.base import TextEnv, make
from repro_rl.errors import ReproError
from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.random_streams import name_key, stream_keys
from repro_rl.rollout.episode import add_step, begin_trajectory
from repro_rl.rollout.fit import Fitted, fitting_prompt
from repro_rl.text.parse import TextFormat, parse_forward
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Completion, Trajectory

# (task id, goal, first observation) -> texts of demonstrations, from the longest to "".
Demonstrations = Callable[[str, str, str], Sequence[str]]


@dataclass(slots=True, frozen=True)
class Job:
    """One episode to play."""

    task_id: str
    rollout: int


class EnvPool:
    """Environments of one kind, built on demand and used again."""

    def __init__(self, name: str, settings: dict[str, Any] | None = None):
        self.name, self.settings = name, dict(settings or {})
        self._envs: list[TextEnv] = []

    def take(self, count: int) -> list[TextEnv]:
        while len(self._envs) < count:
            self._envs.append(make(self.name, **self.settings))
        return self._envs[:count]

    @property
    def first(self) -> TextEnv:
        return self.take(1)[0]


@dataclass(slots=True)
class Live:
    """An episode under way."""

    env: TextEnv
    trajectory: Trajectory
    observation: str
    info: dict[str, Any]
    key: int
    history: list[tuple[str, str]] = field(default_factory=list)
    shown: list[str] = field(default_factory=lambda: [""])  # demonstrations, the longest that fitted first


def begin_episodes(
    pool: EnvPool, jobs: Sequence[Job], stream: object, demonstrations: Demonstrations | None
) -> tuple[list[Live], list[Trajectory]]:
    """Reset an environment for every job: the episodes that began, and all trajectories in order."""
    envs = pool.take(len(jobs))
    live: list[Live] = []
    trajectories: list[Trajectory] = []
    for env, job in zip(envs, jobs, strict=True):
        try:
            observation, info = env.reset(options={"task": job.task_id})
        except ReproError:
            raise  # an unknown task or broken data file concerns every episode
        except Exception as error:  # a lost server is data, not a crash
            trajectories.append(
                Trajectory(job.task_id, job.rollout, "", [], False, 0.0, False, error=_text(error, 0))
            )
            continue
        trajectory = begin_trajectory(job.task_id, job.rollout, observation, info)
        trajectories.append(trajectory)
        episode = Live(env, trajectory, observation, info, name_key(stream, job.task_id, job.rollout))
        if demonstrations is not None:
            episode.shown = [*demonstrations(job.task_id, info["goal"], observation)] or [""]
        live.append(episode)
    return live, trajectories


def take_step(episode: Live, completion: Completion, prompt: Fitted, fmt: TextFormat, t: int) -> bool:
    """Play what ``completion`` says in step ``t``; True when the episode goes on.

    Without a completion, or with a failing environment, it ends with ``error`` set and no step added.
    """
    if completion.error is not None:
        episode.trajectory.error = f"no completion at step {t}: {completion.error}"
        return False
    parsed = parse_forward(completion.text, fmt)
    defects = parsed.defects if completion.finished else (*parsed.defects, "cut_off")
    try:
        observation, reward, terminated, truncated, info = episode.env.step(parsed.action)
    except Exception as error:  # a lost server or a broken game is data, not a crash
        episode.trajectory.error = _text(error, t)
        return False
    ended = add_step(
        episode.trajectory,
        (observation, reward, terminated, truncated, info),
        before=episode.observation,
        anchor=episode.info["anchor"],
        action=parsed.action,
        completion=completion,
        prompt=prompt.text,
        shortened=prompt.shortened,
        online=parsed.online,
        defects=defects,
    )
    episode.history.append((episode.observation, parsed.action))
    episode.observation, episode.info = observation, info
    return not ended


def run_episodes(
    pool: EnvPool,
    jobs: Sequence[Job],
    policy: Policy,
    prompts: PromptBuilder,
    sampling: SamplingSettings,
    *,
    stream: object,
    max_prompt_tokens: int = 2048,
    demonstrations: Demonstrations | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Play every job once. Returns trajectories in the order of ``jobs``.

    ``stream`` names the randomness: the same stream, job and weights give the same episode. ``on_step`` is
    told how many episodes ended at each step. A failing environment, or a completion that a server did not
    give, ends its episode with ``error`` set; the others go on. A prompt over ``max_prompt_tokens`` first
    takes the next shorter text of its task's ``demonstrations`` (and keeps to it), then loses its history,
    then the middle of its observation (see ``fit``), then ends the episode the same way.
    """
    live, trajectories = begin_episodes(pool, jobs, stream, demonstrations)
    t = 0
    while live:
        t += 1
        ready: list[Live] = []
        fitted: list[Fitted] = []
        for episode in live:
            prompt = fitting_prompt(
                policy,
                prompts,
                max_prompt_tokens,
                episode.shown,
                episode.history,
                instructions=episode.env.instructions,
                goal=episode.info["goal"],
                observation=episode.observation,
                admissible=episode.info["admissible"],
                step=t,
                max_steps=episode.env.max_steps,
            )
            if prompt is None:
                episode.trajectory.error = f"prompt of step {t} is longer than {max_prompt_tokens} tokens"
                continue
            ready.append(episode)
            fitted.append(prompt)
        if not ready:
            if on_step is not None:
                on_step(len(live))
            break
        keys = stream_keys(0, np.array([e.key for e in ready], dtype=np.uint64), t)
        completions = policy.generate([prompt.text for prompt in fitted], keys, sampling)
        still = [
            episode
            for episode, prompt, completion in zip(ready, fitted, completions, strict=True)
            if take_step(episode, completion, prompt, prompts.fmt, t)
        ]
        if on_step is not None:
            on_step(len(live) - len(still))
        live = still
    return trajectories


def _text(error: Exception, t: int) -> str:
    return f"{type(error).__name__} at step {t}: {error}"
