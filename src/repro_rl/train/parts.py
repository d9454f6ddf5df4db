"""The parts of an RL run that train: updater, rehearsal, and what scores answers a second time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from repro_rl.config import MethodSection, TrainSection
from repro_rl.demos.environment import check_environment
from repro_rl.demos.store import demos_digest, load_demos
from repro_rl.errors import PreflightError
from repro_rl.policy import TransformersPolicy
from repro_rl.rollout.context import Context
from repro_rl.run.lineage import demos_of
from repro_rl.run.setup import Setup
from repro_rl.train.mismatch import build_correction, needs_own_logprobs
from repro_rl.train.rehearsal import Rehearsal
from repro_rl.train.scoring import Scorer
from repro_rl.train.update import TrainedModel, Updater


def build_rehearsal(setup: Setup, context: Context, policy: TransformersPolicy) -> Rehearsal | None:
    """None when the method does not rehearse.

    Raises PreflightError or DataError when it cannot, ConfigError for demonstrations of other env settings.
    """
    config = setup.config
    if not config.method.rehearses:
        return None
    demos = demos_of(config.train)
    check_environment(demos, config.env)
    experts, labelled = load_demos(demos)
    return Rehearsal(
        [*experts, *labelled],
        context,
        setup.prompts,
        policy.codec,
        count=config.method.rehearsal,
        coef=config.method.rehearsal_coef,
        micro_tokens=config.train.micro_tokens,
        seed=config.seed,
        ranks=setup.ranks,
    )


def rehearsed_from(method: MethodSection, train: TrainSection) -> tuple[Path, str] | None:
    """The demonstrations that the method rehearses and their digest; None when it does not.

    ``build_rehearsal`` has read them before.
    """
    if not method.rehearses:
        return None
    demos = demos_of(train)
    return demos, demos_digest(demos)


def build_scorer(setup: Setup, context: Context, policy: TransformersPolicy, reference: Any) -> Scorer | None:
    """What scores answers a second time; None where the method needs none.

    ``reference``: the frozen model, where the method compares with it.
    """
    config = setup.config
    if not config.method.scores:
        return None
    return Scorer(
        policy,
        reference,
        setup.prompts,
        context.limits.privileged(policy.codec.positions),
        config.train.micro_tokens,
        config.train.temperature,
    )


def build_updater(
    setup: Setup, policy: TransformersPolicy, reference: Any, rehearsal: Rehearsal | None
) -> Updater:
    """What takes the gradient steps; ``reference``: the frozen model of the KL term, or None.

    Raises PreflightError for an importance cap on several ranks.
    """
    config, ranks = setup.config, setup.ranks
    needed = needs_own_logprobs(config.train.loss, torch.finfo(getattr(torch, policy.describe()["dtype"])))
    alone = ranks.world == 1
    correction = build_correction(
        config.train.importance_cap, config.policy.backend, own_logprobs=needed and alone
    )
    if needed and correction is None and ranks.first:
        warnings.warn(
            "In half precision the rounding of log-probs alone carries rows beyond the bounds of gspo, and "
            "their gradient is lost. Set train.importance_cap=auto in one process, policy.dtype=float32, or "
            "wider train.loss.clip_low and clip_high.",
            stacklevel=2,
        )
    if correction is not None and not alone:
        raise PreflightError(
            "train.importance_cap compares samples in one process only; set it to auto or off, or start "
            "one process."
        )
    trained = TrainedModel(
        ranks.trainable(policy.model), reference, policy.codec.pad_id, policy.precision, policy.packed_allowed
    )
    method = config.method
    return Updater(
        trained,
        config.train,
        method.reflect_coef,
        ranks,
        method.distill,
        rehearse=None if rehearsal is None else rehearsal.batches,
        correction=correction,
    )
