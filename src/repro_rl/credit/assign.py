"""Fill rewards and advantages into the records of an iteration, in place."""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.credit.baseline import check_choice
from repro_rl.credit.pool import Pool, pooled_series
from repro_rl.credit.reward import RewardSettings, composite_rewards, reflection_reward
from repro_rl.credit.rules import CREDIT, CreditSettings
from repro_rl.errors import ConfigError
from repro_rl.types import Group


def assign_credit(
    groups: Sequence[Group],
    reward: RewardSettings,
    rule: str,
    credit: CreditSettings,
    *,
    expects_online: bool,
    shaping_in_episode: bool = False,
    alignment_in_episode: bool = False,
    excluded: frozenset[str] = frozenset(),
    pool: Pool = "none",
) -> None:
    """Set ``step.terms`` and ``step.advantage`` of every step.

    The step reward is the sum of all terms. The episode return is env + invalid + format + boundary; shaping
    and alignment join it only on request: shaping telescopes to P_T - P_0, so there it would be a constant on
    success and the judge's noise on failure (METHOD, guards). A rule without a step part ("grpo") therefore
    sees neither unless asked to.

    Terms named in ``excluded`` are recorded but enter neither the step reward nor the episode return (used
    when the progress tokens are credited apart from the action).

    ``pool="state"``: the judged progress of a state is the group's mean (``pooled_series``).

    Each ``Group`` object is a group of its own, even where two name the same task. A trajectory with
    ``error`` set has no known outcome: it gets terms, advantage 0, and no part in any baseline (our
    decision).
    Raises UnknownNameError for an unknown rule, ConfigError when the rule returns another shape than it was
    given.
    """
    check_choice("pool", pool, ("none", "state"))
    function = CREDIT.get(rule)
    in_episode = ["env", "invalid", "format", "boundary"]
    in_episode += ["shaping"] * shaping_in_episode + ["alignment"] * alignment_in_episode
    steps, rewards, names, anchors, returns = [], [], [], [], []
    for index, group in enumerate(groups):
        judged = pooled_series(group, reward.anchor) if pool == "state" else [None] * len(group.trajectories)
        for trajectory, series in zip(group.trajectories, judged, strict=True):
            rows = composite_rewards(trajectory, reward, expects_online=expects_online, retrospective=series)
            for step, terms in zip(trajectory.steps, rows, strict=True):
                step.terms, step.advantage = terms, 0.0
            if trajectory.error is not None:
                continue
            steps.append(trajectory.steps)
            names.append(f"{index}:{group.task_id}")
            rewards.append([sum(v for name, v in terms.items() if name not in excluded) for terms in rows])
            anchors.append([step.anchor for step in trajectory.steps])
            returns.append(sum(terms[name] for terms in rows for name in in_episode if name not in excluded))
    advantages = function(rewards, names, anchors, credit, returns)
    if [len(row) for row in advantages] != [len(row) for row in rewards]:
        raise ConfigError(
            f"The credit rule {rule!r} must return one advantage per step, in the shape of its rewards."
        )
    for row, values in zip(steps, advantages, strict=True):
        for step, value in zip(row, values, strict=True):
            step.advantage = float(value)


def reflection_advantages(groups: Sequence[Group]) -> None:
    """Set ``terms`` and ``advantage`` of every reflection: its reward minus the mean of its group.

    Trajectories without a reflection are skipped, and so are those with ``error`` set (advantage 0).
    A reflection alone in its group gets 0 (our decision).
    """
    for group in groups:
        known = []
        for trajectory in group.trajectories:
            reflection = trajectory.reflection
            if reflection is None:
                continue
            reflection.terms, reflection.advantage = reflection_reward(trajectory), 0.0
            if trajectory.error is None:
                known.append(reflection)
        if known:
            mean = sum(sum(reflection.terms.values()) for reflection in known) / len(known)
            for reflection in known:
                reflection.advantage = sum(reflection.terms.values()) - mean
