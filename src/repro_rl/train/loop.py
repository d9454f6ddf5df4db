"""Stage 2: the RL loop. Roll out, reflect, credit, update; validate; checkpoint; continue after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from repro_rl.config import RunConfig
from repro_rl.credit import CREDIT, CreditSettings, RewardSettings, assign_credit, reflection_advantages
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ApiError, PreflightError, TrainingStopped
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import Sampler
from repro_rl.policy.lora import AdapterOff
from repro_rl.random_streams import name_key
from repro_rl.rollout import Job, reflect, run_episodes, write_trajectories
from repro_rl.rollout.panel_play import group_metrics, rollout_metrics
from repro_rl.train.alarms import Alarms
from repro_rl.train.build import (
    build_pool,
    build_prompts,
    build_sampler,
    forward_sampling,
    load_policy,
    reflect_sampling,
    seed_dropout,
    set_threads,
    validation_panel,
)
from repro_rl.train.checkpoint import latest, load_optimizer, prune, save_checkpoint, start_model
from repro_rl.train.mismatch import build_correction
from repro_rl.train.preflight import check_disk, check_prompt, check_thinking
from repro_rl.train.rehearsal import build_rehearsal
from repro_rl.train.run_folder import MetricsLog, manifest, open_run, write_manifest
from repro_rl.train.samples import build_samples, progress_token_advantages
from repro_rl.train.update import Updater, check_kl
from repro_rl.train.warmup import validation_success
from repro_rl.types import Group

# Settings that decide when to stop, what is kept and what is printed, but not what is computed.
FREE_ON_CONTINUE = (
    "train.iterations",
    "train.env_steps",
    "train.keep",
    "alarms",
    "eval.split",
    "eval.tasks",
    "policy.vllm.server",
)

OnRow = Callable[[dict[str, Any]], None]
OnText = Callable[[str], None]


def reward_settings(config: RunConfig) -> RewardSettings:
    m = config.method
    return RewardSettings(
        shaping=m.shaping,
        beta=m.beta,
        alignment=m.alignment,
        alpha=m.alpha,
        align_to=m.align_to,
        format_coef=m.format_coef,
        boundary_coef=m.boundary_coef,
        invalid_penalty=m.invalid_penalty,
        anchor=m.anchor,
    )


def credit_settings(config: RunConfig) -> CreditSettings:
    m = config.method
    return CreditSettings(
        gamma=m.gamma,
        omega=m.omega,
        normalize=m.normalize,
        episode_baseline=m.episode_baseline,
        history=m.history,
        level_power=m.level_power,
    )


def credit_groups(config: RunConfig, groups: Sequence[Group]) -> None:
    """Rewards and advantages of every step and reflection, in place, as the method's settings say."""
    method = config.method
    assign_credit(
        groups,
        reward_settings(config),
        method.credit,
        credit_settings(config),
        expects_online=method.progress,
        shaping_in_episode=method.shaping_in_episode,
        alignment_in_episode=method.alignment_in_episode,
        excluded=frozenset({"alignment"}) if method.advantage_on == "split" else frozenset(),
    )
    if method.reflect:
        reflection_advantages(groups)


def chosen_reflections(config: RunConfig, iteration: int, group: int, size: int) -> set[int]:
    """Which of a group's ``size`` reflections are trained on: a seeded share, the same number everywhere."""
    method = config.method
    if not method.reflect or method.reflect_coef == 0:
        return set()  # nothing to learn from them, so nothing to compute
    if method.reflect_share == 1:
        return set(range(size))
    rng = np.random.default_rng(name_key(config.seed, "reflections", iteration, group))
    return {int(i) for i in rng.permutation(size)[: max(1, round(method.reflect_share * size))]}


def task_schedule(ids: Sequence[str], seed: int, iteration: int, count: int) -> list[str]:
    """The tasks of an iteration (1-based): successive slices of one shuffled pass after another."""
    start = (iteration - 1) * count
    tasks = []
    for place in range(start, start + count):
        epoch, offset = divmod(place, len(ids))
        order = np.random.default_rng(name_key(seed, "tasks", epoch)).permutation(len(ids))
        tasks.append(ids[int(order[offset])])
    return tasks


class RLRun:
    """One training run: what ``run_training`` drives, usable from a notebook step by step."""

    def __init__(self, config: RunConfig, out: Path, on_text: OnText | None = None):
        if config.train.init is None:
            raise PreflightError("train.init is not set: give the warm start, e.g. --init runs/warm/model.")
        set_threads(config)
        CREDIT.get(config.method.credit)  # an unknown name must fail before anything is paid for
        warm_start = start_model(config.train.init)
        self.config, self.out = config, out
        self.say: OnText = on_text or (lambda text: None)
        self.pool = build_pool(config)
        self.prompts = build_prompts(config)
        self.tasks: TaskPanel = self.pool.first.panel(config.train.split)
        validation = validation_panel(config, self.pool)
        found = latest(out) if (out / "config.yaml").exists() else None
        start = found[1] if found else warm_start
        self.policy: TransformersPolicy = load_policy(config, start, training=True, resumed=found is not None)
        check_thinking(config, self.policy)
        check_prompt(config, self.pool.first, self.policy, self.prompts, self.tasks.ids[0])
        check_disk(config, out, self.policy)
        check_kl(config.train, self.policy.model.config.vocab_size)
        open_run(out, config, free=FREE_ON_CONTINUE)
        needs_reference = config.train.kl.form != "none" and config.train.kl.coef > 0
        reference: Any = None
        if needs_reference:
            # Without its adapter an adapted model is the warm start: no second copy.
            reference = (
                AdapterOff(self.policy.model)
                if self.policy.adapted
                else load_policy(config, warm_start).model.requires_grad_(False)
            )
        rehearsal = build_rehearsal(config, self.policy, self.prompts, self.pool.first.instructions)
        self.accelerator = Accelerator(cpu=self.policy.device.type == "cpu")
        # After the accelerator: vLLM sets up torch.distributed for itself.
        self.sampler: Sampler = build_sampler(config, self.policy)
        self.updater = Updater(
            self.policy.model,
            reference,
            self.policy.pad_id,
            config.train,
            config.method,
            self.accelerator,
            self.policy.precision,
            rehearsal.batches if rehearsal is not None else None,
            build_correction(config.train.importance_cap, config.policy.backend),
        )
        self.alarms = Alarms(config.alarms)
        self.iteration, self.env_steps, self.seconds = 0, 0, 0.0
        self.best: tuple[float, int] | None = None
        if found:
            self.iteration = found[0]
            state = found[2]
            self.env_steps, self.seconds = int(state["env_steps"]), float(state["seconds"])
            self.alarms.streak = {k: int(v) for k, v in state["alarms"].items()}
            if state["best_iteration"] is not None:
                self.best = (float(state["best_success"]), int(state["best_iteration"]))
            load_optimizer(found[1], self.updater.optimizer)
            self.say(f"Continuing {out} after iteration {self.iteration}.")
        self.log = MetricsLog(out, self.iteration)
        write_manifest(
            out,
            manifest(
                config,
                panels={"train": self.tasks.manifest(), "validation": validation.manifest()},
                environment=self.pool.first.describe(),
                sampler=self.sampler.describe(),
                parameters=sum(p.numel() for p in self.policy.model.parameters()),
            ),
        )

    def done(self) -> bool:
        train = self.config.train
        return self.iteration >= train.iterations or (
            train.env_steps is not None and self.env_steps >= train.env_steps
        )

    def rollout(self, iteration: int) -> list[Group]:
        """Play and, where the method asks for it, reflect: G episodes of each of the iteration's tasks."""
        config = self.config
        train, prompt = config.train, config.prompt
        tasks = task_schedule(self.tasks.ids, config.seed, iteration, train.groups)
        stream = ("train", config.seed, iteration)
        # A task drawn twice in an iteration needs other streams: rollouts are numbered through.
        jobs = [
            Job(task, place * train.group_size + k)
            for place, task in enumerate(tasks)
            for k in range(train.group_size)
        ]
        trajectories = run_episodes(
            self.pool,
            jobs,
            self.sampler,
            self.prompts,
            forward_sampling(config, train.temperature),
            stream=stream,
            max_prompt_tokens=prompt.max_prompt_tokens,
        )
        judged_at = config.method.judge_temperature
        if config.method.reflect:
            reflect(
                trajectories,
                self.sampler,
                self.prompts,
                reflect_sampling(config, train.temperature if judged_at is None else judged_at),
                instructions=self.pool.first.instructions,
                stream=stream,
                max_prompt_tokens=prompt.max_reflect_tokens,
            )
        size = train.group_size
        return [Group(task, trajectories[i * size : (i + 1) * size]) for i, task in enumerate(tasks)]

    def credit(self, groups: list[Group]) -> None:
        credit_groups(self.config, groups)

    def step(self) -> dict[str, Any]:
        """One iteration. Returns its row of metrics."""
        config, method = self.config, self.config.method
        iteration = self.iteration + 1
        begin = time.perf_counter()
        groups = self.rollout(iteration)
        played = time.perf_counter()
        self.credit(groups)
        trajectories = [t for g in groups for t in g.trajectories]
        samples = build_samples(
            groups,
            fmt=self.prompts.fmt,
            decode=self.policy.decode,
            advantage_on=method.advantage_on,
            progress_advantages=progress_token_advantages(groups) if method.advantage_on == "split" else None,
            reflections=self._trained_reflections(groups, iteration),
        )
        seed_dropout(config, iteration)
        self.sampler.before_update()
        update = self.updater.update(samples, groups=len(groups), iteration=iteration, seed=config.seed)
        self.sampler.weights_changed()
        updated = time.perf_counter()
        self.iteration = iteration
        self.env_steps += sum(t.length for t in trajectories)
        every = config.train.record_every
        if every and (iteration % every == 0 or iteration == 1):
            write_trajectories(
                self.out / "trajectories" / f"iteration-{iteration:05d}.jsonl.gz", trajectories, iteration
            )
        self.seconds += time.perf_counter() - begin
        row: dict[str, Any] = {
            "iteration": iteration,
            "env_steps": self.env_steps,
            "seconds": round(self.seconds, 3),
            **rollout_metrics(trajectories),
            **group_metrics(groups),
            **update,
            "time/rollout": round(played - begin, 3),
            "time/update": round(updated - played, 3),
        }
        return row

    def validate(self, row: dict[str, Any]) -> None:
        """Success on the validation panel; the best iteration so far is remembered."""
        reached = validation_success(
            self.config, self.sampler, self.pool, progress=self.config.method.progress
        )
        row["eval/success"] = reached
        row["eval/tasks"] = self.config.eval.validation_tasks
        if self.best is None or reached > self.best[0]:
            self.best = (reached, self.iteration)

    def save(self) -> None:
        save_checkpoint(
            self.out / "checkpoints" / f"{self.iteration:05d}",
            self.policy,
            self.updater.optimizer,
            {
                "iteration": self.iteration,
                "env_steps": self.env_steps,
                "seconds": self.seconds,
                "best_success": self.best[0] if self.best else None,
                "best_iteration": self.best[1] if self.best else None,
                "alarms": self.alarms.streak,
            },
        )
        prune(self.out, self.config.train.keep, self.best[1] if self.best else None)

    def save_unsaved(self) -> None:
        """Save the last finished iteration unless its checkpoint is there already."""
        if self.iteration and not (self.out / "checkpoints" / f"{self.iteration:05d}").exists():
            self.save()

    def _trained_reflections(self, groups: list[Group], iteration: int) -> set[tuple[int, int]] | None:
        """A seeded share of the reflections, the same number in every group; None for all that there are."""
        method = self.config.method
        if method.reflect_coef and (not method.reflect or method.reflect_share == 1):
            return None
        return {
            (g, i)
            for g, group in enumerate(groups)
            for i in chosen_reflections(self.config, iteration, g, len(group.trajectories))
        }


def run_training(
    config: RunConfig, out: Path, on_row: OnRow | None = None, on_text: OnText | None = None
) -> RLRun:
    """Train until the iterations or environment steps are used up; repeat the call to continue a killed run.

    Raises TrainingStopped when an alarm persists; the checkpoint before it is kept. When a server of the
    sampler is lost (ApiError), what was trained so far is saved first.
    """
    run = RLRun(config, out, on_text)
    try:
        _train(run, on_row)
    finally:
        run.sampler.close()
    return run


def _train(run: RLRun, on_row: OnRow | None) -> None:
    train, out = run.config.train, run.out
    while not run.done():
        try:
            row = run.step()
        except ApiError:
            run.save_unsaved()
            raise
        warnings, reason = run.alarms.check(row)
        last = run.done()
        if train.eval_every and (run.iteration % train.eval_every == 0 or last):
            run.validate(row)
        run.log.add(row)
        if on_row is not None:
            on_row(row)
        for warning in warnings:
            run.say(f"iteration {run.iteration}: {warning}")
        if reason is not None:
            raise TrainingStopped(
                f"Stopped after iteration {run.iteration}: {reason}. "
                f"Checkpoints are in {out / 'checkpoints'}; the limits are in the section 'alarms'."
            )
        if run.iteration % train.save_every == 0 or "eval/success" in row or last:
            run.save()
