"""A study as jobs: lists of ordinary ``repro-rl`` commands, with what must have finished before each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.config import TrainSection
from repro_rl.study.definition import (
    AFTER_WARMUP,
    STUDY_WIDE,
    Arm,
    Evaluation,
    Study,
    arm_settings,
    grid,
    label,
    resolved,
    run_config,
)


@dataclass(frozen=True, slots=True)
class Job:
    """Commands that run one after another; ``after`` names jobs that must have finished."""

    name: str  # unique, a file name
    stage: str  # "warm", "sweep" or "final"
    arm: str  # "" for a warm start
    seed: int
    folder: Path  # of the run
    commands: tuple[tuple[str, ...], ...]  # arguments of repro-rl
    after: tuple[str, ...] = ()
    env_steps: int | None = None  # the budget, for the display
    iterations: int = 0


def warm_job(study: Study, out: Path, item: Arm | None, seed: int) -> Job:
    """Demonstrations and warmup of a seed, shared by all arms; ``item``: an arm that needs its own."""
    own = item.own_warm_start() if item else []
    name = f"warm-{item.name}-seed{seed}" if item and own else f"warm-seed{seed}"
    folder = out / "warm" / (f"{item.name}-seed{seed}" if item and own else f"seed{seed}")
    shared = [s for s in study.set if s.startswith(STUDY_WIDE) or not s.startswith(AFTER_WARMUP)]
    settings = [*shared, *own]
    updates = resolved(study.recipe, *settings).warmup.updates
    settings.insert(0, f"seed={seed}")
    demos, warmup = str(folder / "demos"), str(folder / "warmup")
    config = ("-c", study.recipe)
    return Job(
        name=name,
        stage="warm",
        arm="",
        seed=seed,
        folder=folder / "warmup",
        commands=(
            ("demos", *config, "-o", demos, *settings),
            ("warmup", *config, "--demos", demos, "-o", warmup, *settings),
        ),
        iterations=updates,
    )


def arm_jobs(
    study: Study,
    out: Path,
    item: Arm,
    seed: int,
    knobs: dict[str, Any] | None = None,
    *,
    sweep: bool = False,
) -> list[Job]:
    """The run of an arm on a seed, after the warm start that it needs: one or two jobs."""
    jobs = []
    config = run_config(study, item, knobs, sweep=sweep)
    init = item.init
    if init in ("warm", "untrained"):
        jobs.append(warm_job(study, out, item, seed))
        tiny = config.policy.model == "tiny"
        folder = jobs[0].folder
        init = str(folder / "model" if init == "warm" else folder / "initial")
        if item.init == "untrained" and not tiny:
            jobs, init = [], config.policy.model
    steps = study.sweep.env_steps if sweep and study.sweep and study.sweep.env_steps else study.env_steps
    # Alarms warn but do not stop a run: leaving out runs that collapse would flatter a method.
    settings = ["alarms.patience=0", *_budget(config.train, steps)]
    settings += arm_settings(study, item, knobs, sweep=sweep)
    final = resolved(study.recipe, f"method.name={item.method}", *settings)
    settings.insert(0, f"seed={seed}")
    subfolder = Path("sweep", item.name, label(knobs or {})) if sweep else Path("runs", item.name)
    folder = out / subfolder / f"seed{seed}"
    commands = []
    if item.train:
        head = ("train", "-c", study.recipe, "--method", item.method, "--init", init, "-o", str(folder))
        commands.append((*head, *settings))
    if not sweep:
        commands += _evaluations(study, item, init, folder, settings)
    jobs.append(
        Job(
            name="-".join(["sweep" if sweep else "run", *subfolder.parts[1:], f"seed{seed}"]),
            stage="sweep" if sweep else "final",
            arm=item.name,
            seed=seed,
            folder=folder,
            commands=tuple(commands),
            after=tuple(job.name for job in jobs),
            env_steps=final.train.env_steps,
            iterations=final.train.iterations if item.train else 0,
        )
    )
    return jobs


def _budget(train: TrainSection, env_steps: int | None) -> list[str]:
    """The step budget, with a limit of iterations that no run can reach before it."""
    if env_steps is None:
        return []
    episodes = train.groups * train.group_size
    return [f"train.env_steps={env_steps}", f"train.iterations={math.ceil(env_steps / episodes)}"]


def _evaluations(
    study: Study, item: Arm, init: str, folder: Path, settings: list[str]
) -> list[tuple[str, ...]]:
    """An evaluation for every checkpoint and temperature; an untrained arm has one checkpoint."""
    section = study.evaluation
    panel = [
        f"eval.{key}={value}"
        for key, value in (
            ("split", section.split),
            ("tasks", section.tasks),
            ("rollouts", section.rollouts),
        )
        if value is not None
    ]
    commands = []
    for checkpoint in section.checkpoints:
        for temperature in temperatures(section):
            name = evaluation_name(section, checkpoint, temperature)
            overrides = [*panel, *([] if temperature is None else [f"eval.temperature={temperature}"])]
            judge = () if section.judge else ("--no-judge",)
            if item.train:
                head: tuple[str, ...] = ("eval", str(folder), "--checkpoint", checkpoint)
                commands.append((*head, "--name", name, *judge, *overrides))
            else:
                head = ("eval", init, "-c", study.recipe, "-o", str(folder), "--name", name, *judge)
                commands.append((*head, f"method.name={item.method}", *settings, *overrides))
    return commands


def temperatures(section: Evaluation) -> list[float | None]:
    """One for each evaluation of a checkpoint; None: the recipe's."""
    return list(section.temperatures) or [None]


def evaluation_name(section: Evaluation, checkpoint: str, temperature: float | None) -> str:
    """The name of a result file: the checkpoint, with the temperature where there are several."""
    return checkpoint if len(section.temperatures) < 2 else f"{checkpoint}-t{temperature:g}"


def evaluation_names(section: Evaluation) -> list[str]:
    """Every result file that a run will have."""
    pairs = itertools.product(section.checkpoints, temperatures(section))
    return [evaluation_name(section, checkpoint, temperature) for checkpoint, temperature in pairs]


def final_jobs(study: Study, out: Path, chosen: dict[str, dict[str, Any]]) -> list[Job]:
    """All runs of the final stage, seed by seed; ``chosen``: the sweep's settings of each arm."""
    jobs: dict[str, Job] = {}
    for seed in study.seeds:
        for item in study.methods:
            for job in arm_jobs(study, out, item, seed, chosen.get(item.name)):
                jobs.setdefault(job.name, job)
    return list(jobs.values())


def sweep_jobs(study: Study, out: Path) -> list[Job]:
    """All runs of the sweep, with their warm starts; none without a sweep."""
    jobs: dict[str, Job] = {}
    for seed in study.sweep.seeds if study.sweep else []:
        for item in study.methods:
            for knobs in grid(study, item):
                for job in arm_jobs(study, out, item, seed, knobs, sweep=True):
                    jobs.setdefault(job.name, job)
    return list(jobs.values())
