"""Credit rules by name. A package adds its own with ``@register_credit`` or the entry-point group below."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from repro_rl.credit.baseline import Normalize, check_choice
from repro_rl.credit.gigpo import EpisodeBaseline, gigpo_advantages
from repro_rl.credit.grpo import grpo_advantages
from repro_rl.errors import ConfigError
from repro_rl.registry import Registry


@dataclass(frozen=True, slots=True)
class CreditSettings:
    """How rewards become advantages; a rule ignores what it has no use for. Raises ConfigError."""

    gamma: float = 0.95  # discount of the step part's return-to-go (public GiGPO recipes)
    omega: float = 1.0  # weight of the step part
    normalize: Normalize = "mean"
    episode_baseline: EpisodeBaseline = "steps"

    def __post_init__(self) -> None:
        check_choice("credit.normalize", self.normalize, ("mean", "mean_std"))
        check_choice("credit.episode_baseline", self.episode_baseline, ("steps", "trajectories"))
        if not (math.isfinite(self.gamma) and 0.0 <= self.gamma <= 1.0):
            raise ConfigError(f"credit.gamma is {self.gamma}; it must lie between 0 and 1.")
        if not (math.isfinite(self.omega) and self.omega >= 0.0):
            raise ConfigError(f"credit.omega is {self.omega}; give a finite number >= 0.")


Rewards = Sequence[Sequence[float]]  # N trajectories of T_n step rewards
Anchors = Sequence[Sequence[Hashable]]  # N trajectories of T_n state keys
CreditRule = Callable[
    [Rewards, Sequence[Hashable], Anchors, CreditSettings, Sequence[float] | None], list[list[float]]
]

CREDIT: Registry[CreditRule] = Registry("credit rule", group="repro_rl.credit")


def register_credit(name: str) -> Callable[[CreditRule], CreditRule]:
    """Decorator: add a function ``(rewards, groups, anchors, settings, episode_returns)`` under ``name``.

    It returns one advantage per step, in the shape of ``rewards``. Raises ConfigError when the name is taken.
    """
    return CREDIT.register(name)


@register_credit("grpo")
def _grpo(
    rewards: Rewards,
    groups: Sequence[Hashable],
    anchors: Anchors,
    settings: CreditSettings,
    episode_returns: Sequence[float] | None,
) -> list[list[float]]:
    """The trajectory's advantage on each of its steps; gamma, omega and the anchors play no part."""
    if len(rewards) != len(groups) or (episode_returns is not None and len(episode_returns) != len(rewards)):
        raise ConfigError("grpo: rewards, groups and episode_returns need one entry per trajectory.")
    returns = [sum(row) for row in rewards] if episode_returns is None else list(episode_returns)
    kept = [
        n for n, row in enumerate(rewards) if row
    ]  # a trajectory without a step is no part of the baseline
    values = grpo_advantages(
        [returns[n] for n in kept], [groups[n] for n in kept], normalize=settings.normalize
    )
    result: list[list[float]] = [[] for _ in rewards]
    for n, value in zip(kept, values, strict=True):
        result[n] = [value] * len(rewards[n])
    return result


@register_credit("gigpo")
def _gigpo(
    rewards: Rewards,
    groups: Sequence[Hashable],
    anchors: Anchors,
    settings: CreditSettings,
    episode_returns: Sequence[float] | None,
) -> list[list[float]]:
    return gigpo_advantages(
        rewards,
        groups,
        anchors,
        gamma=settings.gamma,
        omega=settings.omega,
        normalize=settings.normalize,
        episode_baseline=settings.episode_baseline,
        episode_returns=episode_returns,
    )
