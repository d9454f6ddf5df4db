"""Stage 2, reinforcement learning: play, reflect, credit, update; validate; checkpoint; continue."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from repro_rl.credit import assign_credit, judge_agreement, reflection_advantages
from repro_rl.dist.sharding import copy_weights
from repro_rl.errors import counted
from repro_rl.interrupts import deferred
from repro_rl.policy import TransformersPolicy
from repro_rl.random_streams import name_key
from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest, write_trajectories
from repro_rl.rollout.counts import common, error_reasons, group_metrics, rollout_metrics
from repro_rl.rollout.record import training_file, trajectory_record
from repro_rl.rollout.samples import SampleFormat
from repro_rl.run.alarms import Alarms
from repro_rl.run.callbacks import Callback
from repro_rl.run.checkpoint import Checkpoint, load_optimizer
from repro_rl.run.folder import MetricsLog, begin_run
from repro_rl.run.host_memory import return_freed_memory
from repro_rl.run.inputs import DEMOS_DIGEST, check_same_demos
from repro_rl.run.model_paths import START, start_entry
from repro_rl.run.preflight import check_disk, check_prompt
from repro_rl.run.setup import Setup
from repro_rl.run.trackers import run_callbacks, run_info
from repro_rl.run.validation import validation_success
from repro_rl.train.checkpointed import CheckpointedRun, OnText, notifier
from repro_rl.train.dynamic import fill_mixed, is_mixed
from repro_rl.train.parts import build_rehearsal, build_scorer, build_updater, rehearsed_from
from repro_rl.train.schedule import ReflectionSampling, check_one_process, group_owners, task_schedule
from repro_rl.train.start import OpenedRun, open_training
from repro_rl.train.state import RLState
from repro_rl.train.update import check_kl
from repro_rl.types import Group, Trajectory


class RLRun(CheckpointedRun):
    """One training run: what ``run_training`` drives, usable from a notebook step by step.

    Started on several ranks (see ``dist``), each has one of these and makes the same calls.
    """

    state: RLState

    unit = "iteration"

    def __init__(
        self,
        setup: Setup,
        out: str | Path,
        on_text: OnText | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        """Load the models and check what can be checked; continue from the newest checkpoint in ``out``.

        ``callbacks``: beside those of the settings. Raises PreflightError for what would fail later, and
        ConfigError when ``out`` is of other settings or tasks. Raises CheckpointError for a model that cannot
        be loaded or is not the one that the run began with. Raises MissingDependencyError for a tracker that
        is not installed.
        """
        config, ranks = setup.config, setup.ranks
        self.setup, self.out = setup, Path(out)
        self.notify = notifier(on_text, ranks)
        self.callbacks = run_callbacks(config.train, ranks, callbacks, on_text)
        opened = open_training(setup, self.out)
        start, self.tasks, self.panels = opened.start, opened.tasks, opened.panels
        self.policy = setup.load_trained(start.model, resumed=start.checkpoint is not None)
        self.context = setup.context(self.policy.codec)
        self._check()
        reference = setup.reference(self.policy, start.warm_start)
        rehearsal = build_rehearsal(setup, self.context, self.policy)
        rehearsed = ranks.on_first(lambda: rehearsed_from(config.method, config.train))
        if opened.continues and rehearsed is not None:
            ranks.on_first(lambda: check_same_demos(self.out, *rehearsed))
        self.sampler = setup.sampler(self.policy)
        with ExitStack() as stack:  # a server or its engine does not outlive a run that cannot begin
            stack.callback(self.sampler.close)
            frozen = reference.model if config.train.kl.active else None
            self.updater = build_updater(setup, self.policy, frozen, rehearsal)
            self.optimizer = self.updater.optimizer
            self.scorer = build_scorer(setup, self.context, self.policy, reference.model)
            self.scores: dict[str, float] = {}  # metrics of the iteration's second scoring
            self.dropped: list[Group] = []  # played in the iteration, and not trained on
            self.actor = Actor(self.sampler, setup.prompts, setup.action_sampling(config.train.temperature))
            self.judge_policy = reference.judge_policy  # None: the sampler, whose weights are in training
            self.reflections = ReflectionSampling.of_run(setup)
            self.state = self._restored(start.checkpoint)
            self.alarms = Alarms(config.alarms, self.state.streaks)
            self._begin(opened, {} if rehearsed is None else {DEMOS_DIGEST: rehearsed[1]})
            stack.pop_all()  # who drives the run closes it

    def done(self) -> bool:
        """Whether the iterations or the environment steps are used up."""
        train = self.setup.config.train
        return self.iteration >= train.iterations or (
            train.env_steps is not None and self.env_steps >= train.env_steps
        )

    def rollout(self, iteration: int) -> list[Group]:
        """Play and, where the method asks for it, reflect: G episodes of each of the iteration's tasks.

        With ``train.dynamic_sampling``, what was played and is not trained on is left in ``dropped``.
        """
        config = self.setup.config
        tasks = task_schedule(self.tasks.ids, config.seed, iteration, config.train.groups)
        played = self.setup.ranks.spread(
            self.owners(iteration),
            lambda groups: self._play(tasks, groups, iteration),
            prompts=config.train.records(iteration),
        )
        groups = [Group(task, trajectories) for task, trajectories in zip(tasks, played, strict=True)]
        self.dropped = []
        if config.train.dynamic_sampling:
            sampled = fill_mixed(
                groups, lambda *more: self._play_more(iteration, *more), config.train.dynamic_sampling
            )
            groups, self.dropped = sampled.groups, sampled.dropped
        return groups

    def owners(self, iteration: int) -> list[int]:
        """Which rank plays which of the iteration's groups."""
        config = self.setup.config
        return group_owners(config.train.groups, iteration, config.seed, self.setup.ranks.world)

    def credit(self, groups: Sequence[Group], iteration: int) -> None:
        """Rewards and advantages of every step and reflection, in place, as the method's settings say."""
        method = self.setup.config.method
        self.scores = {} if self.scorer is None else self.scorer.score(groups, method)
        assign_credit(groups, method)
        if method.reflect:
            choice, size = self.reflections.choice, self.setup.config.train.group_size
            numbers = [g.trajectories[0].rollout // size for g in groups]  # among all groups played
            trained = [
                choice.chosen(iteration, number, len(g.trajectories))
                for number, g in zip(numbers, groups, strict=True)
            ]
            reflection_advantages(groups, trained)
            agreement = judge_agreement(groups, method)
            if agreement is not None:
                self.scores["reflect/agreement"] = agreement

    def step(self) -> dict[str, Any]:
        """One iteration. Returns its row of metrics.

        Interrupted while it plays, it leaves the state of the iteration before; an update is finished first.
        """
        state, iteration = self.state, self.iteration + 1
        begin = time.perf_counter()
        groups = self.rollout(iteration)
        return_freed_memory()
        played = time.perf_counter()
        self.credit(groups, iteration)
        trajectories = [t for g in (*groups, *self.dropped) for t in g.trajectories]
        if broken := error_reasons(trajectories):
            self.notify(
                f"iteration {iteration}: {counted(broken.total(), 'episode')} broke off: {common(broken)}"
            )
        if self.setup.config.train.records(iteration) and self.setup.ranks.first:
            write_trajectories(training_file(self.out, iteration), trajectories, iteration)
            self.callbacks.episodes(
                iteration, lambda: [trajectory_record(trajectory, iteration) for trajectory in trajectories]
            )
        recorded = time.perf_counter()
        with deferred():
            with self.one_update():
                update = self._update(groups, iteration)
                state.iteration = iteration
                state.env_steps += sum(t.length for t in trajectories)
                state.row = row = self._row(trajectories, groups, update)
            try:
                self.sampler.weights_changed()  # of a lost server it raises ApiError; the iteration is done
            finally:
                updated = time.perf_counter()
                state.seconds += updated - begin
                row |= {
                    "seconds": round(state.seconds, 3),
                    "time/rollout": round(played - begin, 3),
                    "time/update": round(updated - recorded, 3),
                }
        return row

    def _row(
        self, trajectories: Sequence[Trajectory], groups: Sequence[Group], update: dict[str, float]
    ) -> dict[str, Any]:
        """The metrics of the iteration that has just been trained on."""
        return {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            "seconds": round(self.state.seconds, 3),
            **rollout_metrics(trajectories),
            **group_metrics(groups),
            **self._played(groups),
            **self.scores,
            **self.context.metrics(trajectories),
            **update,
        }

    def validate(self, row: dict[str, Any]) -> None:
        """Success on the validation panel; the best iteration so far is remembered."""
        success = validation_success(self.setup, self.context, self.sampler, self.setup.prompts)
        row["validation/success"] = success
        row["validation/tasks"] = self.setup.config.eval.validation_tasks
        if self.best is None or success > self.best[0]:
            self.state.best = (success, self.iteration)
        self.callbacks.validation(self.iteration, row)

    @property
    def env_steps(self) -> int:
        """Environment steps played in training so far."""
        return self.state.env_steps

    @property
    def best(self) -> tuple[float, int] | None:
        """The best validation success and its iteration; None before a validation."""
        return self.state.best

    def kept(self) -> tuple[int, int | None]:
        """The newest ``train.keep`` checkpoints, and the one of the best validation."""
        return self.setup.config.train.keep, self.best[1] if self.best else None

    # Parts of a step ------------------------------------------------------------------------------

    def _played(self, groups: Sequence[Group]) -> dict[str, float]:
        """The metrics of dynamic sampling."""
        if not self.setup.config.train.dynamic_sampling:
            return {}
        return {
            "rollout/groups_played": float(len(groups) + len(self.dropped)),
            "rollout/groups_mixed": float(sum(map(is_mixed, groups))),
        }

    def _play_more(self, iteration: int, number: int, played: int, count: int) -> list[Group]:
        """``count`` groups for round ``number`` of dynamic sampling, after ``played`` groups."""
        seed = name_key(self.setup.config.seed, "dynamic", number)
        tasks = task_schedule(self.tasks.ids, seed, iteration, count)
        episodes = self._play(tasks, range(count), iteration, played)
        return [Group(task, trajectories) for task, trajectories in zip(tasks, episodes, strict=True)]

    def _play(
        self, tasks: Sequence[str], groups: Sequence[int], iteration: int, first: int = 0
    ) -> list[list[Trajectory]]:
        """The episodes of these groups (indices in ``tasks``), of which ``first`` groups came before."""
        config = self.setup.config
        size = config.train.group_size
        # A task drawn twice in an iteration needs other streams: rollouts are numbered through.
        requests = [RolloutRequest(tasks[g], (first + g) * size + k) for g in groups for k in range(size)]
        judge = None
        if config.method.reflect:
            judge = Judge(
                lambda trajectory: self.reflections.of(iteration, trajectory),
                self.judge_policy,
                self.reflections.without_win if config.method.judges_lost_only else None,
            )
        options = PlayOptions(stream=("train", config.seed, iteration), max_live=len(requests))
        trajectories = self.context.play(requests, self.actor, judge, options)
        return [trajectories[i * size : (i + 1) * size] for i in range(len(groups))]

    def _update(self, groups: list[Group], iteration: int) -> dict[str, float]:
        """Train on the credited groups. Returns the update's metrics."""
        config, ranks = self.setup.config, self.setup.ranks
        sample_format = SampleFormat(
            self.setup.prompts.fmt, self.policy.codec.decode, config.method.advantage_on
        )
        samples = self.context.samples(ranks.own_groups(groups, self.owners(iteration)), sample_format)
        self.setup.seed_dropout(iteration, *ranks.stream_names)
        self.sampler.before_update()
        if isinstance(self.judge_policy, TransformersPolicy):
            self.judge_policy.decoders.free_for_update(share=0)
        metrics = self.updater.update(
            samples,
            groups=len(groups),
            iteration=iteration,
            seed=config.seed,
            before_step=self.before_step,
        )
        copy_weights(self.updater.trained.model, self.policy.model)
        return_freed_memory()
        return metrics

    # Building -------------------------------------------------------------------------------------

    def _check(self) -> None:
        """What would certainly fail later. Raises PreflightError."""
        setup, config = self.setup, self.setup.config
        codec, task, reflects = self.policy.codec, self.tasks.ids[0], config.method.reflect
        remarks = check_prompt(self.context, setup.prompts, codec, task, reflects=reflects)
        for line in remarks if setup.ranks.first else ():
            warnings.warn(line, stacklevel=4)
        setup.ranks.on_first(lambda: check_disk(self.out, self.policy.model, config.train.keep + 1))
        check_kl(config.train.kl.form, self.policy.model.config.vocab_size)
        check_one_process(config.train.dynamic_sampling, config.method.scores, setup.ranks.world)

    def _restored(self, checkpoint: Checkpoint | None) -> RLState:
        """The state to go on from. A checkpoint's weights are loaded already; its optimizer is here."""
        if checkpoint is None:
            return RLState()
        load_optimizer(checkpoint.folder, self.optimizer)
        self.notify(f"Continuing {self.out} after iteration {checkpoint.iteration}.")
        return RLState.from_json(checkpoint.iteration, checkpoint.state)

    def _begin(self, opened: OpenedRun, made_from: dict[str, Any]) -> None:
        """Write what the run is, and open its log. ``made_from``: further entries of its manifest."""
        config, ranks = self.setup.config, self.setup.ranks
        if ranks.world > 1:
            self.notify(f"{ranks.world} processes share this run.")
        ranks.on_first(lambda: begin_run(self.out, config, opened.continues))
        logged = self.state.iteration - (self.state.row is not None)
        self.log = MetricsLog(self.out, logged) if ranks.first else None
        if self.log is not None:
            start = start_entry(opened.start.warm_start)
            self._write_manifest("training", self.panels, {START: start, **made_from})
            self.callbacks.start(run_info("train", self.out, config, opened.continues, self.log.rows))
        self.save_unsaved_when_terminated()
