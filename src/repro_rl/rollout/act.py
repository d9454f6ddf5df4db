"""Acting: all live episodes step together and leave the batch when they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repro_rl.envs.base import TextEnv
from repro_rl.envs.contract import checked_reset, checked_step, overdue
from repro_rl.policy.base import Keys, Policy, SamplingSettings
from repro_rl.random_streams import name_key, stream_keys
from repro_rl.rollout.env_pool import EnvPool
from repro_rl.rollout.episode import (
    Decision,
    add_step,
    begin_trajectory,
    concerns_all,
    failed_trajectory,
    reason_of,
    step_inputs,
)
from repro_rl.rollout.fit import FittedPrompt, fitting_prompt
from repro_rl.text.parse import TextFormat, parse_action
from repro_rl.text.prompts import PromptBuilder, StepInputs
from repro_rl.types import Completion, Trajectory

NO_COMPLETION = "no completion"  # begins the reason of an episode that a server ended
CUT_OFF = "cut_off"  # the defect of a completion that reached its length limit

# (task id, goal, first observation) -> texts of demonstrations, from the longest to "".
Demonstrations = Callable[[str, str, str], Sequence[str]]


def with_cut(defects: tuple[str, ...], completion: Completion) -> tuple[str, ...]:
    """The parser's ``defects`` of a completion, and CUT_OFF where it was cut off."""
    return defects if completion.finished else (*defects, CUT_OFF)


@dataclass(slots=True, frozen=True)
class RolloutRequest:
    """One episode to play."""

    task_id: str
    rollout: int  # names the episode's random stream with the task


@dataclass(slots=True, frozen=True)
class Actor:
    """A policy with the prompts and the sampling that it is asked with."""

    policy: Policy
    prompts: PromptBuilder
    sampling: SamplingSettings


@dataclass(slots=True, frozen=True)
class PlayOptions:
    """How a set of episodes is played: randomness, demonstrations, batch size and progress callback."""

    stream: object  # the same stream, request and weights give the same episode
    demonstrations: Demonstrations | None = None  # texts for the prompts of a task
    max_live: int | None = None  # episodes under way at once; the result does not depend on it
    # Called after each step with the number that ended at it, and with 1 for each that could not begin.
    on_done: Callable[[int], None] | None = None
    # Called with each episode that has ended, and once more when it has its reflection; in chat mode, where
    # a reflection is the last turn, only then.
    on_episode: Callable[[Trajectory], None] | None = None


@dataclass(slots=True)
class LiveEpisode:
    """An episode under way."""

    env: TextEnv
    trajectory: Trajectory
    observation: str
    info: dict[str, Any]
    key: int  # of its random stream
    history: list[tuple[str, str]] = field(default_factory=list)  # past (observation, action)
    demonstrations: list[str] = field(default_factory=lambda: [""])  # texts, the longest that fitted first

    def inputs(self, *, history: bool = True) -> StepInputs:
        """What the prompt of the next step shows; demonstrations are added where they fit."""
        goal, admissible = self.info["goal"], self.info["admissible"]
        past = self.history if history else ()
        return step_inputs(self.env, goal, self.observation, admissible, self.trajectory.steps, past)


def begin_episodes(
    pool: EnvPool, requests: Sequence[RolloutRequest], options: PlayOptions
) -> tuple[list[LiveEpisode], list[Trajectory]]:
    """Reset an environment for every request: the episodes that began, and all trajectories in order.

    ``options`` is told of those that could not begin, as of every episode that has ended.
    """
    live: list[LiveEpisode] = []
    trajectories: list[Trajectory] = []
    for env, request in zip(pool.take(len(requests)), requests, strict=True):
        try:
            observation, info = checked_reset(env.reset(options={"task": request.task_id}))
        except Exception as error:  # a lost server or a broken contract ends this episode only
            if concerns_all(error):
                raise
            failed = failed_trajectory(request.task_id, request.rollout, error)
            trajectories.append(failed)
            if options.on_done is not None:
                options.on_done(1)
            if options.on_episode is not None:
                options.on_episode(failed)
            continue
        trajectory = begin_trajectory(request.task_id, request.rollout, observation, info)
        trajectories.append(trajectory)
        key = name_key(options.stream, request.task_id, request.rollout)
        episode = LiveEpisode(env, trajectory, observation, info, key)
        if options.demonstrations is not None:
            texts = options.demonstrations(request.task_id, info["goal"], observation)
            episode.demonstrations = [*texts] or [""]
        live.append(episode)
    return live, trajectories


def step_keys(episodes: Sequence[LiveEpisode], t: int) -> Keys:
    """[E] uint64 keys of the random streams that step ``t`` of the episodes is sampled with."""
    return stream_keys(0, np.array([episode.key for episode in episodes], dtype=np.uint64), t)


def take_step(
    episode: LiveEpisode, completion: Completion, prompt: FittedPrompt, fmt: TextFormat, t: int
) -> bool:
    """Play the action of ``completion`` as step ``t``; False when that ended the episode.

    When the server gave no completion, or the environment fails, the episode fails and no step is added.
    """
    if completion.error is not None:
        episode.trajectory.fail(f"{NO_COMPLETION} at step {t}: {completion.error}")
        return False
    parsed = parse_action(completion.text, fmt)
    decision = Decision(
        observation=episode.observation,
        anchor=episode.info["anchor"],
        action=parsed.action,
        completion=completion,
        prompt=prompt.text,
        shortened=prompt.shortened,
        online=parsed.online,
        defects=with_cut(parsed.defects, completion),
    )
    try:
        result = checked_step(episode.env.step(parsed.action))
    except Exception as error:  # a lost server, a broken game or contract ends this episode only
        episode.trajectory.fail(reason_of(error, t))
        return False
    ended = add_step(episode.trajectory, decision, result)
    episode.history.append((episode.observation, parsed.action))
    episode.observation, episode.info = result[0], result[4]
    late = None if ended else overdue(episode.env.max_steps, t)
    if late is not None:
        episode.trajectory.fail(late)
    return not ended and late is None


def run_episodes(
    pool: EnvPool,
    requests: Sequence[RolloutRequest],
    actor: Actor,
    options: PlayOptions,
    max_prompt_tokens: int,
) -> list[Trajectory]:
    """Play every request once, each step with a prompt of its own. Trajectories in the order of requests.

    A failing environment, or a completion that a server did not give, fails its episode and no other. A
    prompt over ``max_prompt_tokens`` is shortened (see ``fit``); where even the shortest one is longer, the
    episode fails. Demonstrations that did not fit once are not tried again in that episode.
    """
    episodes, trajectories = begin_episodes(pool, requests, options)

    def fit(row: int, t: int) -> FittedPrompt | None:
        episode, codec = episodes[row], actor.policy.codec
        inputs, demonstrations = episode.inputs(), episode.demonstrations
        prompt = fitting_prompt(codec, actor.prompts, max_prompt_tokens, demonstrations, inputs)
        if prompt is None:
            episode.trajectory.fail(f"prompt of step {t} is longer than {max_prompt_tokens} tokens")
        return prompt

    def complete(rows: Sequence[int], prompts: Sequence[str], keys: Keys) -> list[Completion]:
        return actor.policy.generate(prompts, keys, actor.sampling)

    def end(row: int) -> None:
        if options.on_episode is not None:
            options.on_episode(episodes[row].trajectory)

    act_together(episodes, fit, complete, actor.prompts.fmt, options.on_done, end)
    return trajectories


def act_together(
    episodes: Sequence[LiveEpisode],
    fit: Callable[[int, int], FittedPrompt | None],
    complete: Callable[[Sequence[int], Sequence[str], Keys], list[Completion]],
    fmt: TextFormat,
    on_done: Callable[[int], None] | None,
    on_end: Callable[[int], None] = lambda row: None,
) -> None:
    """Play all episodes to their ends, one step of every live one at a time.

    An episode is named by its index, its row, 0..N-1. ``fit(row, t)``: the prompt of its step t; None where
    it has ended the episode instead. ``complete(rows, prompts, keys)``: a completion for each of R rows, from
    R prompts and ``keys`` [R]. ``on_end(row)`` is called when an episode has ended, ``on_done`` after each
    step with the number that ended at it.
    """
    live: Sequence[int] = range(len(episodes))
    t = 0
    while live:
        t += 1
        fitted = {row: prompt for row in live if (prompt := fit(row, t)) is not None}
        continuing: dict[int, None] = {}
        if fitted:
            keys = step_keys([episodes[row] for row in fitted], t)
            completions = complete(list(fitted), [prompt.text for prompt in fitted.values()], keys)
            for (row, prompt), completion in zip(fitted.items(), completions, strict=True):
                if take_step(episodes[row], completion, prompt, fmt, t):
                    continuing[row] = None
        for row in live:
            if row not in continuing:
                on_end(row)
        if on_done is not None:
            on_done(len(live) - len(continuing))
        live = list(continuing)
