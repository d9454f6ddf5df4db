"""GRPO, RLOO, GiGPO and HGPO as credit rules by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from repro_rl.credit.gigpo import gigpo_advantages
from repro_rl.credit.grpo import grpo_advantages
from repro_rl.credit.hgpo import hgpo_advantages
from repro_rl.credit.rloo import rloo_advantages
from repro_rl.credit.rules import Anchors, Groups, Returns, Rewards, register_credit
from repro_rl.credit.settings import CreditSettings
from repro_rl.errors import ConfigError


@register_credit("grpo", published={"normalize": "mean_std"}, paid_by=["episode"])
def _grpo(
    rewards: Rewards, groups: Groups, anchors: Anchors, settings: CreditSettings, episode_returns: Returns
) -> list[list[float]]:
    """The trajectory's advantage on each of its steps; gamma, omega and the anchors are not used."""

    def rule(returns: list[float], names: list[Hashable]) -> list[float]:
        return grpo_advantages(returns, names, normalize=settings.normalize)

    return _per_trajectory("grpo", rule, rewards, groups, episode_returns)


@register_credit("rloo", paid_by=["episode"])
def _rloo(
    rewards: Rewards, groups: Groups, anchors: Anchors, settings: CreditSettings, episode_returns: Returns
) -> list[list[float]]:
    """As grpo, relative to the other rollouts only; normalize is not used either."""
    return _per_trajectory("rloo", rloo_advantages, rewards, groups, episode_returns)


def _per_trajectory(
    name: str,
    rule: Callable[[list[float], list[Hashable]], list[float]],
    rewards: Rewards,
    groups: Groups,
    episode_returns: Returns,
) -> list[list[float]]:
    """One advantage a trajectory, repeated on its steps. One without a step has no part in any baseline."""
    if len(rewards) != len(groups) or (episode_returns is not None and len(episode_returns) != len(rewards)):
        raise ConfigError(f"{name}: rewards, groups and episode_returns need one entry per trajectory.")
    returns = [sum(row) for row in rewards] if episode_returns is None else list(episode_returns)
    played = [n for n, row in enumerate(rewards) if row]
    values = rule([returns[n] for n in played], [groups[n] for n in played])
    result: list[list[float]] = [[] for _ in rewards]
    for n, value in zip(played, values, strict=True):
        result[n] = [value] * len(rewards[n])
    return result


@register_credit("gigpo", published={"gamma": 0.95})
def _gigpo(
    rewards: Rewards, groups: Groups, anchors: Anchors, settings: CreditSettings, episode_returns: Returns
) -> list[list[float]]:
    """``EP(R) + omega * SN(G)``: the episode return in its task, and the return-to-go in the same state."""
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


@register_credit("hgpo", published={"gamma": 0.95, "normalize": "mean_std"}, paid_by=["steps"])
def _hgpo(
    rewards: Rewards, groups: Groups, anchors: Anchors, settings: CreditSettings, episode_returns: Returns
) -> list[list[float]]:
    """Returns-to-go compared with those of steps in the same state and with the same past.

    There is no episode part: omega, episode_baseline and the episode returns are not used.
    """
    return hgpo_advantages(
        rewards,
        groups,
        anchors,
        gamma=settings.gamma,
        history=settings.history,
        level_power=settings.level_power,
        normalize=settings.normalize,
    )
