"""An estimate for this machine, measured: whole iterations of a small model, the rates of a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from repro_rl.config import RunConfig, TrainSection
from repro_rl.errors import PreflightError
from repro_rl.plan.estimate import Estimate, RunOutline, estimate_from_iteration, estimate_from_parts
from repro_rl.plan.iteration_time import time_by_rates
from repro_rl.plan.memory import memory_parts
from repro_rl.plan.probe_iterations import extrapolate, measure_iteration, probe_groups
from repro_rl.plan.probe_rates import measure_rates
from repro_rl.plan.resources import memory_now
from repro_rl.policy.loading.precision import resolve_device
from repro_rl.run.lineage import demos_of
from repro_rl.run.models import load_trained

SMALL_MODEL = 5_000_000  # parameters below which whole small iterations are measured


def probe_estimate(
    run: RunOutline, config: RunConfig, log: Callable[[str], None]
) -> tuple[Estimate, list[str]]:
    """The estimate of the run of ``config``, and notes on how it was made."""
    gpu = resolve_device(config.policy.device) != "cpu"
    name = f"this machine ({torch.cuda.get_device_name(0) if gpu else 'CPU'}, measured)"
    if run.shape.parameters < SMALL_MODEL and not gpu:
        groups = probe_groups(run.train.groups, run.train.minibatches)
        if groups is not None:
            settings = _settings(config)
            smaller, larger = (measure_iteration(settings, count, log) for count in groups)
            estimate = estimate_from_iteration(run, name, extrapolate(smaller, larger, run.train.groups))
            return estimate, [
                f"Measured with {groups[0]} and {groups[1]} of {run.train.groups} groups and extended "
                "as a straight line; a validation is taken for half an iteration's time an episode."
            ]
    program = memory_now()
    policy = load_trained(
        config.policy,
        config.train.init or config.policy.model,
        resumed=False,
        seed=config.seed,
        gradient_checkpointing=config.train.gradient_checkpointing,
    )
    phases = run.work.decode_phases
    context = sum(phase.steps * phase.context for phase in phases) / sum(phase.steps for phase in phases)
    rates = measure_rates(policy, run.shape, run.training, log, context, run.train.micro_tokens)
    seconds = time_by_rates(run.shape, run.work, run.training, rates)
    parts = memory_parts(run.shape, run.work, run.training, gpu, rates.packed)
    memory = None
    if gpu:
        memory = float(torch.cuda.get_device_properties(0).total_memory)
    else:
        parts = {"this program": program, **parts}
    return estimate_from_parts(run, name, memory, parts, seconds), []


def _settings(config: RunConfig) -> dict[str, Any]:
    """The config as JSON data, without rehearsal where there are no demonstrations to rehearse.

    Without a warm start the untrained model is the one to start from.
    """
    settings = config.model_dump(mode="json")
    settings["train"]["init"] = config.train.init or config.policy.model
    if config.method.rehearses and not _demonstrations_exist(config.train):
        settings["method"]["rehearsal"] = 0
    return settings


def _demonstrations_exist(train: TrainSection) -> bool:
    try:
        return demos_of(train).exists()
    except PreflightError:
        return False
