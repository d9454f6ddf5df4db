"""Stage 2: the RL loop. Roll out, reflect, credit, update; validate; checkpoint; continue after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from repro_rl.config import RunConfig
from repro_rl.credit import assign_credit, reflection_advantages
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ApiError, PreflightError, TrainingStopped
from repro_rl.methods import credit_settings, reward_settings
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import Policy, Sampler, SamplingSettings
from repro_rl.random_streams import name_key
from repro_rl.rollout import Job, write_trajectories
from repro_rl.rollout.chat import chat_metrics
from repro_rl.rollout.counts import group_metrics, rollout_metrics
from repro_rl.rollout.reflect import Judge
from repro_rl.train.alarms import Alarms
from repro_rl.train.build import (
    build_pool,
    build_prompts,
    build_sampler,
    forward_sampling,
    load_policy,
    load_reference,
    reflect_sampling,
    seed_dropout,
    set_threads,
    validation_panel,
)
from repro_rl.train.chat_samples import build_packed
from repro_rl.train.checkpoint import (
    latest,
    load_optimizer,
    optimizer_tensors,
    prune,
    save_checkpoint,
    start_model,
)
from repro_rl.train.contexts import check_context, is_chat, play_jobs
from repro_rl.train.mismatch import build_correction
from repro_rl.train.parallel import Ranks, check_share, join, owners_of
from repro_rl.train.preflight import check_disk, check_prompt, check_thinking
from repro_rl.train.rehearsal import build_rehearsal
from repro_rl.train.run_folder import MetricsLog, manifest, open_run, write_manifest
from repro_rl.train.samples import build_samples, progress_token_advantages
from repro_rl.train.sharded import copy_weights
from repro_rl.train.update import Updater, check_kl, minibatch_order
from repro_rl.train.warmup import validation_success
from repro_rl.types import Group, Trajectory

# Settings that decide when to stop, what is kept and what is printed, but not what is computed.
FREE_ON_CONTINUE = (
    *("train.iterations", "train.env_steps", "train.keep", "train.peer_timeout"),
    *("alarms", "eval.split", "eval.tasks", "policy.vllm.server"),
)

OnRow = Callable[[dict[str, Any]], None]
OnText = Callable[[str], None]


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
        pool=method.judge_pool,
    )
    if method.reflect:
        reflection_advantages(groups)


def chosen_reflections(config: RunConfig, iteration: int, group: int, size: int) -> set[int]:
    """Which of a group's ``size`` reflections are trained on: a seeded share, the same number everywhere."""
    method = config.method
    if not method.trains_reflections:
        return set()  # nothing to learn from them, so nothing to compute
    if method.reflect_share == 1:
        return set(range(size))
    rng = np.random.default_rng(name_key(config.seed, "reflections", iteration, group))
    return {int(i) for i in rng.permutation(size)[: max(1, round(method.reflect_share * size))]}


def reflection_sampling(config: RunConfig, iteration: int, group: int, number: int) -> SamplingSettings:
    """How the reflection on episode ``number`` of a group is sampled.

    What RL trains on is sampled as the policy acts; the rest as ``method.judge_temperature`` says.
    """
    train, judged_at = config.train, config.method.judge_temperature
    if judged_at is None or number in chosen_reflections(config, iteration, group, train.group_size):
        judged_at = train.temperature
    return reflect_sampling(config, judged_at)


def iteration_judge(config: RunConfig, iteration: int) -> Judge | None:
    """How the episodes of an iteration are judged, rollouts numbered through all groups; None: not at all."""
    if not config.method.reflect:
        return None

    def judge(trajectory: Trajectory) -> SamplingSettings:
        place, number = divmod(trajectory.rollout, config.train.group_size)
        return reflection_sampling(config, iteration, place, number)

    return judge


def task_schedule(ids: Sequence[str], seed: int, iteration: int, count: int) -> list[str]:
    """The tasks of an iteration (1-based): successive slices of one shuffled pass after another.

    Raises PreflightError where there are none.
    """
    if not ids:
        raise PreflightError(
            "The training panel (train.split) has no tasks with these settings of the environment; a small "
            "catalogue with env.settings.splits=position leaves none, for example."
        )
    start = (iteration - 1) * count
    tasks = []
    for place in range(start, start + count):
        epoch, offset = divmod(place, len(ids))
        order = np.random.default_rng(name_key(seed, "tasks", epoch)).permutation(len(ids))
        tasks.append(ids[int(order[offset])])
    return tasks


class RLRun:
    """One training run: what ``run_training`` drives, usable from a notebook step by step.

    Started in several processes (see ``parallel``), each holds one of these and makes the same calls.
    """

    def __init__(self, config: RunConfig, out: Path, on_text: OnText | None = None):
        if config.train.init is None:
            raise PreflightError("train.init is not set: give the warm start, e.g. --init runs/warm/model.")
        set_threads(config)
        warm_start = start_model(config.train.init)
        check_context(config, warm_start)
        self.config, self.out = config, out
        self.ranks: Ranks = join(config)
        check_share(config.train.groups, self.ranks.world)
        self.say: OnText = on_text if on_text and self.ranks.first else (lambda text: None)
        self.pool = build_pool(config)
        self.prompts = build_prompts(config)
        self.tasks: TaskPanel = self.pool.first.panel(config.train.split)
        validation = validation_panel(config, self.pool)
        found = self.ranks.by_first(lambda: latest(out) if (out / "config.yaml").exists() else None)
        start = found[1] if found else warm_start
        self.policy: TransformersPolicy = load_policy(config, start, training=True, resumed=found is not None)
        check_thinking(config, self.policy)
        check_prompt(config, self.pool.first, self.policy, self.prompts, self.tasks.ids[0])
        self.ranks.by_first(lambda: check_disk(config, out, self.policy))
        check_kl(config.train, self.policy.model.config.vocab_size)
        self.ranks.by_first(lambda: open_run(out, config, free=FREE_ON_CONTINUE))
        reference = load_reference(config, self.policy, warm_start)
        env = self.pool.first
        rehearsal = build_rehearsal(config, self.policy, self.prompts, env.instructions, self.ranks, env)
        # Precision is policy.dtype's affair, whatever the launcher's configuration says.
        self.accelerator = Accelerator(cpu=self.policy.device.type == "cpu", mixed_precision="no")
        # After the accelerator: vLLM sets up torch.distributed for itself.
        self.sampler: Sampler = build_sampler(config, self.policy)
        correction = build_correction(config.train.importance_cap, config.policy.backend)
        if correction is not None and self.ranks.world > 1:
            raise PreflightError(
                "train.importance_cap compares samples in one process only; set it to auto or off, or start "
                "one process."
            )
        self.updater = Updater(
            self.ranks.trained(self.policy.model),
            reference.model,
            self.policy.pad_id,
            config.train,
            config.method,
            self.accelerator,
            self.policy.precision,
            rehearsal.batches if rehearsal is not None else None,
            self.ranks,
            config.policy.packed,
            correction,
        )
        self.judged_by: Policy | None = reference.judge  # None: the sampler, whose weights are in training
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
        if self.ranks.world > 1:
            self.say(f"{self.ranks.world} processes share this run.")
        self.log: MetricsLog | None = None
        if not self.ranks.first:
            return
        self.log = MetricsLog(out, self.iteration)
        write_manifest(
            out,
            manifest(
                config,
                processes=self.ranks.world,
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
        train = self.config.train
        tasks = task_schedule(self.tasks.ids, self.config.seed, iteration, train.groups)
        played = self.ranks.spread(
            self.owners(iteration),
            lambda places: self._play(tasks, places, iteration),
            prompts=self._recorded(iteration),
        )
        return [Group(task, trajectories) for task, trajectories in zip(tasks, played, strict=True)]

    def owners(self, iteration: int) -> list[int]:
        """Which process plays which of the iteration's groups."""
        train = self.config.train
        return owners_of(minibatch_order(train.groups, iteration, self.config.seed), self.ranks.world)

    def _recorded(self, iteration: int) -> bool:
        every = self.config.train.record_every
        return every > 0 and (iteration % every == 0 or iteration == 1)

    def _play(self, tasks: Sequence[str], places: Sequence[int], iteration: int) -> list[list[Trajectory]]:
        """The groups at these places of the iteration's tasks."""
        config, train = self.config, self.config.train
        size = train.group_size
        stream = ("train", config.seed, iteration)
        # A task drawn twice in an iteration needs other streams: rollouts are numbered through.
        jobs = [Job(tasks[place], place * size + k) for place in places for k in range(size)]
        trajectories = play_jobs(
            config,
            self.pool,
            jobs,
            self.sampler,
            self.prompts,
            forward_sampling(config, train.temperature),
            iteration_judge(config, iteration),
            stream=stream,
            live=len(jobs),
            judged_by=self.judged_by,
        )
        return [trajectories[i * size : (i + 1) * size] for i in range(len(places))]

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
        samples = (build_packed if is_chat(config) else build_samples)(
            self.ranks.own_groups(groups, self.owners(iteration)),
            fmt=self.prompts.fmt,
            decode=self.policy.decode,
            advantage_on=method.advantage_on,
            progress_advantages=progress_token_advantages(groups) if method.advantage_on == "split" else None,
            reflections=self._trained_reflections(groups, iteration),
        )
        seed_dropout(config, iteration, *self.ranks.names)
        self.sampler.before_update()
        update = self.updater.update(samples, groups=len(groups), iteration=iteration, seed=config.seed)
        copy_weights(self.updater.model, self.policy.model)
        self.sampler.weights_changed()
        updated = time.perf_counter()
        self.iteration = iteration
        self.env_steps += sum(t.length for t in trajectories)
        if self._recorded(iteration) and self.ranks.first:
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
            **(chat_metrics(trajectories) if is_chat(config) else {}),
            **update,
            "time/rollout": round(played - begin, 3),
            "time/update": round(updated - played, 3),
        }
        return row

    def validate(self, row: dict[str, Any]) -> None:
        """Success on the validation panel; the best iteration so far is remembered."""
        reached = validation_success(
            self.config, self.sampler, self.pool, self.config.method.progress, self.ranks
        )
        row["eval/success"] = reached
        row["eval/tasks"] = self.config.eval.validation_tasks
        if self.best is None or reached > self.best[0]:
            self.best = (reached, self.iteration)

    def save(self) -> None:
        with self.ranks.hold():
            self.ranks.check_same_weights(self.policy.model.parameters())
            tensors = optimizer_tensors(self.updater.optimizer)
            if self.ranks.first:
                self._write_checkpoint(tensors)

    def _write_checkpoint(self, tensors: dict[str, Any]) -> None:
        save_checkpoint(
            self.out / "checkpoints" / f"{self.iteration:05d}",
            self.policy,
            tensors,
            {
                "iteration": self.iteration,
                "env_steps": self.env_steps,
                "seconds": self.seconds,
                "best_success": self.best[0] if self.best else None,
                "best_iteration": self.best[1] if self.best else None,
                "alarms": self.alarms.streak,
                "context": self.config.prompt.context,
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
        if method.trains_reflections and method.reflect_share == 1:
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

    Started in several processes, all share the work and the first one alone writes, reports and speaks.
    Raises TrainingStopped when an alarm persists; the checkpoint before it is kept. When a server of the
    sampler is lost (ApiError), what was trained so far is saved first. Raises PeerLostError when another
    process failed or was lost.
    """
    with join(config).guard():
        run = RLRun(config, out, on_text)
        try:
            _train(run, on_row)
        finally:
            run.sampler.close()
    return run


def _train(run: RLRun, on_row: OnRow | None) -> None:
    train = run.config.train
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
        if run.log is not None:
            run.log.add(row)
            if on_row is not None:
                on_row(row)
        for warning in warnings:
            run.say(f"iteration {run.iteration}: {warning}")
        if reason is not None:
            raise TrainingStopped(
                f"Stopped after iteration {run.iteration}: {reason}. "
                f"Checkpoints are in {run.out / 'checkpoints'}; the limits are in the section 'alarms'."
            )
        if run.iteration % train.save_every == 0 or "eval/success" in row or last:
            run.save()
