"""What a run costs on one device: memory, seconds of an iteration, hours of the run."""

from __future__ import annotations

from dataclasses import dataclass

from repro_rl.config import TrainSection
from repro_rl.plan.devices import Device
from repro_rl.plan.iteration_time import IterationTime, time_on_device
from repro_rl.plan.memory import memory_parts, peak
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.probe_iterations import MeasuredIteration
from repro_rl.plan.training_setup import TrainingSetup
from repro_rl.plan.workload import Workload

USABLE = 0.95  # of a device's memory


@dataclass(frozen=True, slots=True)
class RunOutline:
    """A run as estimates see it."""

    shape: ModelShape
    work: Workload
    training: TrainingSetup
    train: TrainSection
    validation_tasks: int

    def hours(self, iteration: float, validation: float) -> float:
        """Of the whole run, from the seconds of one iteration and of one validation."""
        count = float(self.train.iterations)
        if self.train.env_steps is not None:
            count = min(count, self.train.env_steps / max(self.work.action_rows, 1.0))
        validations = count / self.train.validate_every if self.train.validate_every else 0.0
        return (count * iteration + validations * validation) / 3600


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one device."""

    device: str
    memory: float | None  # bytes it has; None: not known
    parts: dict[str, float]  # bytes by part; empty where only the peak was measured
    peak: float  # bytes
    seconds: IterationTime | None  # by part; None where only the iteration was measured
    iteration: float  # seconds
    validation: float  # seconds of one
    hours: float  # of the whole run, without the warmup

    @property
    def fits(self) -> bool:
        return self.memory is None or self.peak <= USABLE * self.memory


def estimate_on_device(run: RunOutline, device: Device) -> Estimate:
    """By published peaks."""
    return estimate_from_parts(
        run,
        device.name,
        device.memory,
        memory_parts(run.shape, run.work, run.training, gpu=True),
        time_on_device(run.shape, run.work, run.training, device),
    )


def estimate_from_parts(
    run: RunOutline, device: str, memory: float | None, parts: dict[str, float], seconds: IterationTime
) -> Estimate:
    """From bytes and seconds by part; a validation takes the rollout's time of an episode, unreflected."""
    work = run.work
    share = work.action_rows * (work.prompt + work.completion)  # of the rollout: acting
    share /= work.prompt_tokens + work.completion_tokens
    validation = seconds.rollout * share * run.validation_tasks / work.episodes
    return Estimate(
        device=device,
        memory=memory,
        parts=parts,
        peak=peak(parts, memory),
        seconds=seconds,
        iteration=seconds.total,
        validation=validation,
        hours=run.hours(seconds.total, validation),
    )


def estimate_from_iteration(run: RunOutline, device: str, iteration: MeasuredIteration) -> Estimate:
    """From a measured iteration; a validation takes half its time an episode."""
    validation = 0.5 * iteration.seconds * run.validation_tasks / run.work.episodes
    return Estimate(
        device=device,
        memory=None,
        parts={},
        peak=iteration.memory,
        seconds=None,
        iteration=iteration.seconds,
        validation=validation,
        hours=run.hours(iteration.seconds, validation),
    )
