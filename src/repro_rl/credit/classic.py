"""GRPO, RLOO, GiGPO and HGPO as credit rules by name."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from repro_rl.credit.gigpo import gigpo_advantages
from repro_rl.credit.grpo import grpo_advantages
from repro_rl.credit.hgpo import hgpo_advantages
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.rloo import rloo_advantages
from repro_rl.credit.rules import SHARED, Anchors, Groups, Returns, Rewards, register_credit
from repro_rl.credit.settings import CreditSettings


@register_credit(
    "grpo",
    published={"normalize": "mean_std"},
    paid_by=["episode"],
    ignores=["gamma", "omega", "episode_baseline"],
)
def _grpo(inputs: CreditInputs, settings: CreditSettings) -> list[list[float]]:
    """The trajectory's advantage on each of its steps; gamma, omega and the anchors are not used."""

    def rule(returns: list[float], names: list[Hashable]) -> list[float]:
        return grpo_advantages(returns, names, normalize=settings.normalize)

    return _per_trajectory(rule, inputs)


@register_credit("rloo", paid_by=["episode"], ignores=SHARED)
def _rloo(inputs: CreditInputs, settings: CreditSettings) -> list[list[float]]:
    """As grpo, relative to the other rollouts only; normalize is not used either."""
    return _per_trajectory(rloo_advantages, inputs)


def _per_trajectory(
    rule: Callable[[list[float], list[Hashable]], list[float]], inputs: CreditInputs
) -> list[list[float]]:
    """One advantage a trajectory, repeated on its steps. One without a step has no part in any baseline."""
    sizes, returns = inputs.sizes.tolist(), inputs.returns().tolist()
    played = [n for n, size in enumerate(sizes) if size]
    values = rule([returns[n] for n in played], [inputs.groups[n] for n in played])
    result: list[list[float]] = [[] for _ in sizes]
    for n, value in zip(played, values, strict=True):
        result[n] = [value] * sizes[n]
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


@register_credit(
    "hgpo",
    published={"gamma": 0.95, "normalize": "mean_std"},
    paid_by=["steps"],
    ignores=["omega", "episode_baseline"],
)
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
