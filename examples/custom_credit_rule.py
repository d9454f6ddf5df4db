"""A credit rule of your own, beside GiGPO on the same fixed episodes; nothing is trained.

    python examples/custom_credit_rule.py

It also registers a method with this rule: with plugins=[custom_credit_rule] and this folder in PYTHONPATH,
repro-rl train --method repro-by-time trains with it.

The rule credits a step with what the rest of its episode paid, discounted. The mean of its task group at the
same step number is subtracted. That is a baseline by time instead of GiGPO's baseline by state.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import repro_rl as rr
from repro_rl.credit import Anchors, Rewards
from repro_rl.rollout.episode import play_actions


@rr.register_credit("by_time")
def by_time(
    rewards: Rewards,
    groups: Sequence[Hashable],
    anchors: Anchors,
    settings: rr.CreditSettings,
    episode_returns: Sequence[float] | None,
) -> list[list[float]]:
    """``A[n][t] = G[n][t] - mean over the group's episodes m of G[m][t]``, G the discounted return-to-go.

    ``rewards``: N episodes of T_n step rewards. Assumes that the step number says how far an episode is.
    """
    returns = []
    for row in rewards:
        total, out = 0.0, []
        for reward in reversed(row):
            total = reward + settings.gamma * total
            out.append(total)
        returns.append(out[::-1])
    at: dict[tuple[Hashable, int], list[float]] = defaultdict(list)
    for group, row in zip(groups, returns, strict=True):
        for t, value in enumerate(row):
            at[group, t].append(value)
    return [
        [value - sum(at[group, t]) / len(at[group, t]) for t, value in enumerate(row)]
        for group, row in zip(groups, returns, strict=True)
    ]


def play_after(env: rr.TextEnv, room: str, detour: Sequence[str]) -> rr.Trajectory:
    """The expert's episode after the actions of ``detour``."""
    actions = iter(detour)
    return play_actions(env, room, lambda info: next(actions, None) or env.expert() or "up")


rr.register_method("repro-by-time", {"shaping": "oracle", "reflect": False, "credit": "by_time"})


def main() -> None:
    config = rr.load_config("sokoban-tiny", ["method=repro-by-time", "method.gamma=0.5"])
    method = config.method
    env = rr.make("sokoban", **config.env.settings)
    rooms = env.panel("train").ids[:4]
    # Two episodes a room: the expert, and one that goes wrong at first.
    groups = []
    for room in rooms:
        played = [play_after(env, room, detour) for detour in ((), ("up", "up", "left", "left"))]
        groups.append(rr.Group(room, played))
    for rule in ("gigpo", "by_time"):
        rr.assign_credit(groups, method.model_copy(update={"credit": rule}))
        for trajectory in groups[0].trajectories:
            steps = "  ".join(f"{step.action} {step.advantage:+.2f}" for step in trajectory.steps)
            print(f"{rule:8} {'won ' if trajectory.won else 'lost'}  {steps}")


if __name__ == "__main__":
    main()
