"""The advantages of a verl batch, by repro_rl's own credit rules and sample conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repro_rl.config import RunConfig
from repro_rl.integrations.verl.session import session_samples
from repro_rl.rollout.counts import group_metrics, rollout_metrics
from repro_rl.text.parse import TextFormat
from repro_rl.train.loop import chosen_reflections, credit_groups
from repro_rl.train.samples import Decode, build_samples, progress_token_advantages
from repro_rl.types import Group, Trajectory

Session = tuple[str, int]  # verl's uid of the task group, number of the session in it
RowKey = tuple[str, int, int]  # and the number of the sample in the session


@dataclass(slots=True)
class CreditedBatch:
    """What the trainer needs of a batch."""

    groups: list[Group]
    advantages: dict[RowKey, NDArray[np.float32]]  # [N] each, one value for each sampled token
    metrics: dict[str, float]


def group_place(config: RunConfig, trajectory: Trajectory) -> int:
    """Index of the task in its iteration (see ``session.play_session``)."""
    return trajectory.rollout // config.train.group_size


def is_trained(config: RunConfig, iteration: int, place: int, session: int) -> bool:
    """Whether this session's reflection is a sample: the same choice as in ``train.loop``."""
    return session in chosen_reflections(config, iteration, place, config.train.group_size)


def credit_batch(
    config: RunConfig, sessions: Mapping[Session, Trajectory], iteration: int, fmt: TextFormat, decode: Decode
) -> CreditedBatch:
    """Credit the sessions of one iteration, group by group, and spread it over the sampled tokens.

    A session that is missing (its worker failed) is no part of any baseline. verl averages the loss over all
    tokens of a mini-batch, ``train.update`` over the tokens of each kind; the PPO objective is homogeneous in
    the advantage, so the kinds' weights are put there: forward ``(F + R) / F``, reflection
    ``reflect_coef * (F + R) / R``, with F and R the trained tokens of the iteration.
    """
    uids: dict[str, list[int]] = {}
    for uid, number in sorted(sessions):
        uids.setdefault(uid, []).append(number)
    order = sorted(uids, key=lambda uid: group_place(config, sessions[uid, uids[uid][0]]))
    groups = [
        Group(sessions[uid, uids[uid][0]].task_id, [sessions[uid, n] for n in uids[uid]]) for uid in order
    ]
    credit_groups(config, groups)
    method = config.method
    trained = {
        (g, i): is_trained(config, iteration, group_place(config, sessions[uid, number]), number)
        for g, uid in enumerate(order)
        for i, number in enumerate(uids[uid])
    }
    samples = iter(
        build_samples(
            groups,
            fmt=fmt,
            decode=decode,
            advantage_on=method.advantage_on,
            progress_advantages=progress_token_advantages(groups) if method.advantage_on == "split" else None,
            reflections={where for where, chosen in trained.items() if chosen},
        )
    )
    rows: dict[RowKey, tuple[str, NDArray[np.float32]]] = {}
    for g, uid in enumerate(order):
        for i, number in enumerate(uids[uid]):
            for index, _ in enumerate(session_samples(sessions[uid, number], trained[g, i])):
                sample = next(samples)
                rows[uid, number, index] = (sample.kind, sample.advantage[sample.trained])
    tokens = {kind: sum(len(a) for k, a in rows.values() if k == kind) for kind in ("forward", "reflect")}
    total = sum(tokens.values())
    scale = {
        "forward": total / max(tokens["forward"], 1),
        "reflect": method.reflect_coef * total / max(tokens["reflect"], 1),
    }
    trajectories = [t for group in groups for t in group.trajectories]
    metrics = {**rollout_metrics(trajectories), **group_metrics(groups)}
    metrics.pop("rollout/entropy")  # servers do not tell; verl logs the trainer's as actor/entropy
    counts = {kind: float(sum(k == kind for k, _ in rows.values())) for kind in tokens}
    metrics |= {
        "samples/forward": counts["forward"],
        "samples/reflect": counts["reflect"],
        "samples/forward_tokens": float(tokens["forward"]),
        "samples/reflect_tokens": float(tokens["reflect"]),
        "samples/env_steps": float(sum(t.length for t in trajectories)),
    }
    return CreditedBatch(
        groups, {key: (a * scale[kind]).astype(np.float32) for key, (kind, a) in rows.items()}, metrics
    )
