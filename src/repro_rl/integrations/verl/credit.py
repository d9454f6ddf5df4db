"""The advantages of a verl batch, by repro_rl's own credit rules and sample conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repro_rl.config import MethodSection
from repro_rl.credit import ReflectionChoice, assign_credit, reflection_advantages
from repro_rl.integrations.verl.session import session_samples
from repro_rl.rollout.context import Context
from repro_rl.rollout.counts import group_metrics, rollout_metrics
from repro_rl.rollout.samples import SampleFormat
from repro_rl.types import Group, TokenKind, Trajectory

Session = tuple[str, int]  # verl's uid of the task group, number of the session in it
SampleKey = tuple[str, int, int]  # and the number of the sample in the session
NAMES = {TokenKind.ACT: "forward", TokenKind.REFLECT: "reflect"}  # in metrics and verl's records


@dataclass(slots=True)
class CreditedBatch:
    """What the trainer needs of a batch."""

    groups: list[Group]
    advantages: dict[SampleKey, NDArray[np.float32]]  # [N] each, one value for each sampled token
    metrics: dict[str, float]


@dataclass(slots=True, frozen=True)
class BatchCredit:
    """Credits the sessions of an iteration and spreads the advantages over the sampled tokens."""

    method: MethodSection
    choice: ReflectionChoice
    group_size: int
    context: Context
    how: SampleFormat

    def credit(self, sessions: Mapping[Session, Trajectory], iteration: int) -> CreditedBatch:
        """Credit the sessions of one iteration, group by group.

        A session that is missing (its worker failed) is no part of any baseline. The trainer of verl averages
        the loss over all tokens of a mini-batch, our own trainer over the tokens of each kind. The PPO
        objective is homogeneous in the advantage, so the kinds' weights are put there: ``(F + R) / F`` for
        tokens that act, ``reflect_coef * (F + R) / R`` for reflections, with F and R the trained tokens of
        the iteration.
        """
        numbers: dict[str, list[int]] = {}
        for uid, number in sorted(sessions):
            numbers.setdefault(uid, []).append(number)
        order = sorted(numbers, key=lambda uid: self._group(sessions[uid, numbers[uid][0]]))
        groups = [
            Group(sessions[uid, numbers[uid][0]].task_id, [sessions[uid, n] for n in numbers[uid]])
            for uid in order
        ]
        assign_credit(groups, self.method)
        reflection_advantages(groups, [self._trained(group, iteration) for group in groups])
        samples = iter(self.context.samples(groups, self.how))
        rows: dict[SampleKey, tuple[TokenKind, NDArray[np.float32]]] = {}
        for uid in order:
            for number in numbers[uid]:
                trajectory = sessions[uid, number]
                reflection = trajectory.reflection
                trained = reflection is not None and reflection.trained
                for index, (kind, _) in enumerate(session_samples(trajectory, trained)):
                    sample = next(samples)
                    rows[uid, number, index] = (kind, sample.advantage[sample.trained])
        return self._scaled(groups, rows)

    def _group(self, trajectory: Trajectory) -> int:
        """Index of the task in its iteration (see ``session.play_session``)."""
        return trajectory.rollout // self.group_size

    def _trained(self, group: Group, iteration: int) -> frozenset[int]:
        """Indices of the group's trajectories whose reflections are samples; sessions may be missing."""
        chosen = self.choice.chosen(iteration, self._group(group.trajectories[0]), self.group_size)
        return frozenset(
            index
            for index, trajectory in enumerate(group.trajectories)
            if trajectory.rollout % self.group_size in chosen
        )

    def _scaled(
        self, groups: list[Group], rows: dict[SampleKey, tuple[TokenKind, NDArray[np.float32]]]
    ) -> CreditedBatch:
        tokens = {kind: sum(len(a) for k, a in rows.values() if k == kind) for kind in NAMES}
        total = sum(tokens.values())
        scale = {
            TokenKind.ACT: total / max(tokens[TokenKind.ACT], 1),
            TokenKind.REFLECT: self.method.reflect_coef * total / max(tokens[TokenKind.REFLECT], 1),
        }
        trajectories = [t for group in groups for t in group.trajectories]
        metrics = {**rollout_metrics(trajectories), **group_metrics(groups)}
        metrics.pop("rollout/entropy")  # servers do not tell; verl logs the trainer's as actor/entropy
        for kind, name in NAMES.items():
            metrics[f"samples/{name}"] = float(sum(k == kind for k, _ in rows.values()))
            metrics[f"samples/{name}_tokens"] = float(tokens[kind])
        metrics["samples/env_steps"] = float(sum(t.length for t in trajectories))
        advantages = {key: (a * scale[kind]).astype(np.float32) for key, (kind, a) in rows.items()}
        return CreditedBatch(groups, advantages, metrics)
