"""Credit rules by name. A package adds its own with ``@register_credit`` or the entry-point group below."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from repro_rl.credit.baseline import Normalize, check_choice
from repro_rl.credit.gigpo import EpisodeBaseline, gigpo_advantages
from repro_rl.credit.grpo import grpo_advantages
from repro_rl.credit.hgpo import hgpo_advantages
from repro_rl.credit.rloo import rloo_advantages
from repro_rl.errors import ConfigError
from repro_rl.registry import Registry


@dataclass(frozen=True, slots=True)
class CreditSettings:
    """How rewards become advantages; a rule ignores what it has no use for. Raises ConfigError."""

    gamma: float = 0.95  # discount of the step part's return-to-go (public GiGPO recipes)
    omega: float = 1.0  # weight of the step part
    normalize: Normalize = "mean"
    episode_baseline: EpisodeBaseline = "steps"
    history: int = 2  # hgpo: past states a step group may share (its recipe)
    level_power: float = 1.0  # hgpo: a level's weight is (depth + 1) to this power (its recipe)

    def __post_init__(self) -> None:
        check_choice("method.normalize", self.normalize, ("mean", "mean_std"))
        check_choice("method.episode_baseline", self.episode_baseline, ("steps", "trajectories"))
        if not (math.isfinite(self.gamma) and 0.0 <= self.gamma <= 1.0):
            raise ConfigError(f"method.gamma is {self.gamma}; it must lie between 0 and 1.")
        if not (math.isfinite(self.omega) and self.omega >= 0.0):
            raise ConfigError(f"method.omega is {self.omega}; give a finite number >= 0.")
        if self.history < 0 or not (math.isfinite(self.level_power) and self.level_power >= 0.0):
            raise ConfigError(
                f"method.history is {self.history} and method.level_power {self.level_power}; "
                "give finite numbers >= 0."
            )


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

    def rule(returns: list[float], names: list[Hashable]) -> list[float]:
        return grpo_advantages(returns, names, normalize=settings.normalize)

    return _per_trajectory("grpo", rule, rewards, groups, episode_returns)


@register_credit("rloo")
def _rloo(
    rewards: Rewards,
    groups: Sequence[Hashable],
    anchors: Anchors,
    settings: CreditSettings,
    episode_returns: Sequence[float] | None,
) -> list[list[float]]:
    """As grpo, against the other rollouts only; normalize plays no part either."""
    return _per_trajectory("rloo", rloo_advantages, rewards, groups, episode_returns)


def _per_trajectory(
    name: str,
    rule: Callable[[list[float], list[Hashable]], list[float]],
    rewards: Rewards,
    groups: Sequence[Hashable],
    episode_returns: Sequence[float] | None,
) -> list[list[float]]:
    """One advantage a trajectory, repeated on its steps; one without a step is no part of any baseline."""
    if len(rewards) != len(groups) or (episode_returns is not None and len(episode_returns) != len(rewards)):
        raise ConfigError(f"{name}: rewards, groups and episode_returns need one entry per trajectory.")
    returns = [sum(row) for row in rewards] if episode_returns is None else list(episode_returns)
    kept = [n for n, row in enumerate(rewards) if row]
    values = rule([returns[n] for n in kept], [groups[n] for n in kept])
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


@register_credit("hgpo")
def _hgpo(
    rewards: Rewards,
    groups: Sequence[Hashable],
    anchors: Anchors,
    settings: CreditSettings,
    episode_returns: Sequence[float] | None,
) -> list[list[float]]:
    """No episode part: omega, episode_baseline and the episode returns play no part."""
    return hgpo_advantages(
        rewards,
        groups,
        anchors,
        gamma=settings.gamma,
        history=settings.history,
        level_power=settings.level_power,
        normalize=settings.normalize,
    )
