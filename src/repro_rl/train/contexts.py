"""The two context modes behind one door: which one a run plays in, and whether its model was taught it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from repro_rl.config import API, RunConfig
from repro_rl.errors import ConfigError
from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.recipe_files import read_settings
from repro_rl.rollout import EnvPool, Job, reflect, run_episodes
from repro_rl.rollout.chat import ChatRoom, run_chats
from repro_rl.rollout.forward import Demonstrations
from repro_rl.rollout.reflect import Judge, by_sampling
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.build import positions_of
from repro_rl.train.run_folder import run_of
from repro_rl.types import Trajectory


def is_chat(config: RunConfig) -> bool:
    return config.prompt.context == "chat"


def need_window(config: RunConfig, what: str) -> None:
    """Raises ConfigError in chat mode: ``what`` knows only one prompt a step."""
    if is_chat(config):
        raise ConfigError(f"{what} knows only prompt.context=window; this run's is chat.")


def chat_room(config: RunConfig, policy: Policy) -> ChatRoom:
    """The limits of a conversation: the settings, or fewer where the model has fewer positions."""
    prompt = config.prompt
    return ChatRoom(
        conversation=min(prompt.max_chat_tokens, positions_of(policy) or prompt.max_chat_tokens),
        turn=prompt.max_prompt_tokens,
        answer=prompt.action_tokens,
        reflection=prompt.reflect_new_tokens,
        together=config.policy.max_cache_tokens,
    )


def play_jobs(
    config: RunConfig,
    pool: EnvPool,
    jobs: Sequence[Job],
    policy: Policy,
    prompts: PromptBuilder,
    sampling: SamplingSettings,
    judge: Judge | None,
    *,
    stream: object,
    live: int = 512,
    limit: int | None = None,
    demonstrations: Demonstrations | None = None,
    on_step: Callable[[int], None] | None = None,
    judged_by: Policy | None = None,
) -> list[Trajectory]:
    """Play every job in the run's context mode and, with ``judge``, reflect on it.

    ``limit``: tokens of a prompt (of a user turn in chat mode), instead of the setting. At most ``live``
    episodes at once. ``judged_by``: who reflects, if not ``policy``; a conversation is always its own judge.
    """
    limit = config.prompt.max_prompt_tokens if limit is None else limit
    if is_chat(config):
        return run_chats(
            pool,
            jobs,
            policy,
            prompts,
            sampling,
            stream=stream,
            room=replace(chat_room(config, policy), turn=limit),
            judge=judge,
            live=live,
            demonstrations=demonstrations,
            on_step=on_step,
        )
    trajectories: list[Trajectory] = []
    for start in range(0, len(jobs), live):
        trajectories += run_episodes(
            pool,
            jobs[start : start + live],
            policy,
            prompts,
            sampling,
            stream=stream,
            max_prompt_tokens=limit,
            demonstrations=demonstrations,
            on_step=on_step,
        )
    for judged_at, places in (by_sampling(trajectories, judge) if judge is not None else {}).items():
        reflect(
            [trajectories[place] for place in places],
            judged_by or policy,
            prompts,
            judged_at,
            instructions=pool.first.instructions,
            stream=stream,
            max_prompt_tokens=config.prompt.max_reflect_tokens,
        )
    return trajectories


def panel_jobs(tasks: Iterable[str], rollouts: int) -> list[Job]:
    """``rollouts`` episodes of every task, in panel order."""
    return [Job(task, k) for task in tasks for k in range(rollouts)]


def taught_context(model: str | Path) -> str | None:
    """The context mode of the run behind a model folder; None for a model that no run here made."""
    if str(model).startswith(API):
        return None
    run = run_of(model)
    if run is None:
        return None
    settings = read_settings(run / "config.yaml")
    return str((settings.get("prompt") or {}).get("context", "window"))


def check_context(config: RunConfig, model: str | Path) -> None:
    """A model must be used in the context mode that it was trained in.

    Raises ConfigError in compact style, which is a code that must have been taught; warns in full style,
    which is language.
    """
    taught, asked = taught_context(model), config.prompt.context
    if taught is None or taught == asked:
        return
    text = f"{model} was trained with prompt.context={taught}, this run has prompt.context={asked}"
    if config.prompt.style == "compact":
        raise ConfigError(
            f"{text}; a model of compact prompts reads only those it was taught. Set "
            f"prompt.context={taught}, or run a warmup with the other."
        )
    warnings.warn(f"{text}: it reads these prompts untaught.", stacklevel=2)
