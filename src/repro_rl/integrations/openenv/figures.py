"""What an expert and two agents that know nothing earn: the figures that an ``openenv.yaml`` declares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from repro_rl.envs.base import filled
from repro_rl.integrations.session import EpisodeSession, open_session

Agent = Callable[[EpisodeSession], str | None]  # the next action; None: it gives up


@dataclass(slots=True, frozen=True)
class RewardFigures:
    """Mean reward of an episode, 0..1 (the score of its outcome), over the same tasks."""

    panel: str  # label of the tasks
    oracle: float  # the environment's expert
    random: float  # draws from the possible actions; free text, as in a search, is the goal's
    idle: float  # plays nothing that is understood

    @property
    def oracle_tolerance(self) -> float:
        """How far the expert stays below 1: OpenEnv wants reward(oracle) >= max - oracle_tolerance."""
        return math.ceil(round((1 - self.oracle) * 1e4, 6)) / 1e4

    @property
    def floor_margin(self) -> float:
        """How far the better of the others stays below 1: OpenEnv wants max - floor >= floor_margin."""
        return math.floor(round((1 - max(self.random, self.idle)) * 1e4, 6)) / 1e4


def measure(
    env: str, settings: Mapping[str, Any] | None = None, *, split: str = "test", tasks: int = 50
) -> RewardFigures:
    """Play the first ``tasks`` tasks of ``split`` three times.

    Raises what ``open_session`` and ``EpisodeSession.reset`` raise, and TaskError for fewer tasks than asked.
    """
    session = open_session(env, settings, split=split)
    panel = session.panel.head(tasks)
    rng = np.random.default_rng(0)

    def expert(session: EpisodeSession) -> str | None:
        return session.env.expert()

    def random(session: EpisodeSession) -> str:
        last = session.last
        assert last is not None
        action = last.admissible[int(rng.integers(len(last.admissible)))] if last.admissible else ""
        return filled(action, last.goal)

    def mean(agent: Agent) -> float:
        return fmean(_reward(session, task, agent) for task in panel)

    return RewardFigures(panel.label(), mean(expert), mean(random), mean(lambda _: ""))


def _reward(session: EpisodeSession, task: str, agent: Agent) -> float:
    """Of one episode; 0 where the agent gives up."""
    result = session.reset(task)
    while not result.done:
        action = agent(session)
        if action is None:
            return 0.0
        result = session.step(action)
    return result.score
