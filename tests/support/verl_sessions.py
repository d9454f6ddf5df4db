"""One iteration, played twice: as verl's agent loop plays its sessions, and by our own rollout at once."""

from __future__ import annotations

import numpy as np

from repro_rl.config import RunConfig, load_config
from repro_rl.integrations.verl.session import Answer, ServerPolicy, Task, play_session
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.loading.codec import load_codec
from repro_rl.rollout import Actor, Judge, play
from repro_rl.run.setup import Setup, set_up
from repro_rl.train import task_schedule
from repro_rl.types import Group, Ids, Trajectory
from support.verl_cases import ServerSeeds

GROUPS, SIZE = 3, 4
ITERATION = 2


def setup_of(warm, *more: str) -> Setup:
    return set_up(config_of(warm, *more))


def config_of(warm, *more: str) -> RunConfig:
    sizes = f"train={{groups: {GROUPS}, group_size: {SIZE}, iterations: 4, minibatches: 1, kl: {{form: k3}}}}"
    return load_config(None, [*warm.settings, sizes, "method.rehearsal=0", *more])


def server(policy: TransformersPolicy, model) -> ServerPolicy:
    """verl's generation server, as a function: token ids in, token ids out."""

    def ask(ids: Ids, settings: SamplingSettings, seed: int) -> Answer:
        [done] = policy.generate_ids([ids], np.array([seed], dtype=np.uint64), settings)
        return Answer(done.token_ids, [float(p) for p in done.logprobs], {"global_steps": 7})

    return ServerPolicy(load_codec(model), ask)


def schedule(setup: Setup) -> list[str]:
    return task_schedule(setup.panel("train").ids, setup.config.seed, ITERATION, GROUPS)


def uid(group: int) -> str:
    """verl's name of a group is random: the order of the groups must not depend on it."""
    return f"uid{9 - group}"


def play_sessions(setup: Setup, warm, policy: TransformersPolicy) -> dict[tuple[str, int], Trajectory]:
    """The sessions of the iteration, one after another, each by itself."""
    return {
        (uid(group), number): play_session(
            setup, server(policy, warm.model), Task("train", task, ITERATION, group, number)
        )
        for group, task in enumerate(schedule(setup))
        for number in range(SIZE)
    }


def own_groups(setup: Setup, policy: TransformersPolicy) -> list[Group]:
    """The same iteration by our own rollout, all episodes at once."""
    actor = Actor(ServerSeeds(policy), setup.prompts, setup.action_sampling(1.0))
    judge = Judge(setup.reflection_sampling(1.0)) if setup.config.method.reflect else None
    stream = ("train", setup.config.seed, ITERATION)
    return play(setup.context(policy.codec), schedule(setup), actor, judge, group_size=SIZE, stream=stream)
