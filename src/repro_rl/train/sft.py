"""Stage 1, Retrospection Warmup: joint supervised training on completions that act and on reflections.

It teaches the formats and starts stage 2. It is stopped before the policy becomes deterministic: an
over-trained warm start leaves most task groups without any signal (decision D27).
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro_rl.config import BETAS, RunConfig, TrainSection, WarmupSection
from repro_rl.config.sections import PRIVILEGED_MODES, READ_BY_WARMUP
from repro_rl.demos.environment import check_environment
from repro_rl.demos.store import demos_digest, is_labelled, load_demos
from repro_rl.dist.sharding import copy_weights
from repro_rl.errors import PreflightError, TrainingStopped
from repro_rl.interrupts import deferred
from repro_rl.policy.model.memory import SCORING, TRAINING, memory_explained
from repro_rl.random_streams import name_key
from repro_rl.run.alarms import warmup_alarm
from repro_rl.run.callbacks import Callback
from repro_rl.run.checkpoint import latest, load_optimizer, save_warm_start
from repro_rl.run.folder import (
    INITIAL,
    MetricsLog,
    begin_run,
    check_run,
    writing_run,
)
from repro_rl.run.inputs import DEMOS, DEMOS_DIGEST, check_same_demos, check_same_panels
from repro_rl.run.lineage import check_context, taught_prompt
from repro_rl.run.model_paths import checkpoint_folder
from repro_rl.run.panels import warmup_validates
from repro_rl.run.preflight import preflight
from repro_rl.run.setup import Setup, join_ranks, set_up
from repro_rl.run.trackers import run_callbacks, run_info
from repro_rl.run.validation import validation_success
from repro_rl.train.batch import Batch, Collation
from repro_rl.train.checkpointed import CheckpointedRun, OnText, ending, notifier
from repro_rl.train.imitation import (
    ImitationData,
    PromptModes,
    accuracies,
    hold_out,
    imitation_batches,
    imitation_data,
    part_counts,
    part_names,
    with_branches,
)
from repro_rl.train.loss import imitation_terms
from repro_rl.train.optimizers import build_optimizer
from repro_rl.train.state import WarmupState
from repro_rl.train.step import apply_gradients
from repro_rl.types import Sample, TokenKind, Trajectory

OnRow = Callable[[dict[str, Any]], None]

COEFS = {TokenKind.ACT: 1.0, TokenKind.REFLECT: 1.0}  # of the mean loss of each kind of tokens
LOSS_METRICS = {TokenKind.ACT: "forward_loss", TokenKind.REFLECT: "reflect_loss"}
MAX_SKIPPED = 5  # updates in a row without a finite gradient, after which warmup stops

# Settings that do not change what is computed here: those of other commands, and of how they are run.
FREE_ON_CONTINUE = (
    *("demos", "method", "alarms"),
    *("eval.split", "eval.tasks", "eval.rollouts", "eval.temperature", "eval.panel"),
    *(f"train.{name}" for name in TrainSection.model_fields if name not in READ_BY_WARMUP),
)


def run_warmup(
    config: RunConfig,
    demos: str | Path,
    out: str | Path,
    on_row: OnRow | None = None,
    callbacks: Sequence[Callback] = (),
    on_text: OnText | None = None,
) -> Path:
    """Train and write ``out/model``. Continues a killed run; a finished one is returned as it is.

    ``callbacks``: told of the run beside those of the settings; ``on_text``: called with a sentence, such as
    where a killed run goes on. Started on several ranks (see ``dist``), each
    computes a share of every gradient. Raises PreflightError without demonstrations, for too small token
    budgets, and when another process writes ``out``. Raises ConfigError when ``out`` is of other settings,
    demonstrations or tasks, and RankLostError when another rank failed or was lost. When it is interrupted,
    or a file cannot be written (OSError), the last finished update is saved first if possible.
    """
    ranks = join_ranks(config)
    alone = ranks.alone_on_first(lambda: writing_run(Path(out)))
    with ranks.guard(), alone, closing(set_up(config)) as setup:
        run = WarmupRun(setup, Path(demos), Path(out), callbacks, on_text)
        with ending(run):
            run.train(on_row)
            return run.write_model()


class WarmupRun(CheckpointedRun):
    """One warmup: what ``run_warmup`` drives. It begins where its folder ends, as an RL run does."""

    state: WarmupState

    unit = "update"

    def __init__(
        self,
        setup: Setup,
        demos: Path,
        out: Path,
        callbacks: Sequence[Callback] = (),
        on_text: OnText | None = None,
    ):
        """Load demonstrations and model; continue from the newest checkpoint in ``out``.

        ``demos``: the folder of demonstrations. ``callbacks``: beside those of the settings. Raises
        PreflightError without demonstrations and for too small token budgets, and DataError for broken
        demonstrations. Raises ConfigError for demonstrations of other env settings, and when ``out`` is of
        other settings, demonstrations or tasks. Raises CheckpointError for a model that cannot be loaded.
        """
        config, ranks = setup.config, setup.ranks
        self.setup, self.out = setup, out
        self.notify = notifier(on_text, ranks)
        self.callbacks = run_callbacks(config.train, ranks, callbacks, None)
        remarks = preflight(config, setup.pool.first, warmup_validates(config.warmup))
        for line in (*remarks, *_actions_untaught(config.warmup)):
            if ranks.first:
                warnings.warn(line, stacklevel=2)
        resumed = ranks.on_first(lambda: check_run(out, config, FREE_ON_CONTINUE, "warmup"))
        check_environment(demos, config.env)
        experts, labelled = load_demos(demos)
        episodes = (*experts, *labelled)
        digest = ranks.on_first(lambda: demos_digest(demos))
        if resumed:
            ranks.on_first(lambda: check_same_demos(out, demos, digest))
            ranks.on_first(lambda: check_same_panels(out, setup.validation_manifest()))
        ranks.on_first(lambda: begin_run(out, config, resumed))
        start = ranks.on_first(lambda: setup.initial_model(episodes, out / INITIAL))
        check_context(config.prompt, start, taught_prompt(start))
        checkpoint = ranks.on_first(lambda: latest(out) if resumed else None)
        path = checkpoint.folder if checkpoint else start
        self.policy = self.sampler = setup.load_trained(path, resumed=checkpoint is not None)
        self.context = setup.context(self.policy.codec)
        trained, held_out = hold_out(experts, config.warmup.held_out)
        self.data = self._data(trained, labelled)
        self.held_out = self._data(held_out, (), shown=trained).actions if held_out else []
        if not self.data:
            raise PreflightError(f"{demos} has no demonstrations; make them with 'repro-rl demos'.")
        if ranks.first:
            for line in untaught(self.data, config.method.reflect, config.warmup.forward_modes):
                warnings.warn(f"{demos}: {line}", stacklevel=2)
            made_from = {DEMOS: str(demos), DEMOS_DIGEST: digest}
            self._write_manifest("warmup", setup.validation_manifest(), made_from | self._taught(episodes))
        self.model = ranks.trainable(self.policy.model)  # in training: this rank's shard, or the whole
        self.optimizer = build_optimizer(
            config.train.optimizer,
            self.model,
            lr=config.warmup.lr,
            betas=BETAS,
            weight_decay=config.warmup.weight_decay,
        )
        self.state = WarmupState()
        if checkpoint:
            self.state = WarmupState.from_json(checkpoint.iteration, checkpoint.state)
            load_optimizer(checkpoint.folder, self.optimizer)
            self.notify(f"Continuing {out} after update {checkpoint.iteration}.")
        self.resumed_at = self.iteration
        self.log = MetricsLog(out, self.iteration - (self.state.row is not None)) if ranks.first else None
        rows = self.log.rows if self.log is not None else []
        if self.log is not None:
            self.callbacks.start(run_info("warmup", out, config, resumed, rows))
        self.successes: list[float] = [
            row["validation/success"] for row in rows if "validation/success" in row
        ]
        self.save_unsaved_when_terminated()

    def train(self, on_row: OnRow | None = None) -> None:
        """All updates that are left, or until the validation success reaches its target."""
        if self.state.row is not None:  # the last command was interrupted before the end of its update
            self._finish(self.state.row, on_row)
        while self.iteration < self.setup.config.warmup.updates and not self.state.stopped:
            with self.one_update():
                self.state.iteration += 1
                try:
                    self.state.row = self._step()
                except BaseException:
                    self.state.iteration -= not self.stepped
                    raise
            self._finish(self.state.row, on_row)
        alarm = warmup_alarm(self.successes, self.setup.config.eval.validation_tasks)
        if alarm is not None:
            warnings.warn(alarm, stacklevel=2)

    def _finish(self, row: dict[str, Any], on_row: OnRow | None) -> None:
        """What follows on an update: validation, log, checkpoint. Raises TrainingStopped."""
        section, ranks = self.setup.config.warmup, self.setup.ranks
        if self.state.skipped == 1:
            warnings.warn(
                f"Update {self.iteration}: the loss or its gradient was NaN or infinite; it is not applied. "
                f"{MAX_SKIPPED} such updates in a row stop the warmup.",
                stacklevel=2,
            )
        acting = self.iteration > section.forward_from
        if section.target_success is not None and acting and self.iteration % section.check_every == 0:
            row["validation/success"] = self._validate()
            self.callbacks.validation(self.iteration, row)
            self.successes.append(row["validation/success"])
            self.state.stopped = row["validation/success"] >= section.target_success
        due = (
            self.iteration % section.save_every == 0
            or self.iteration == section.updates
            or self.state.stopped
        )
        if due:
            row |= self._measure()
        with deferred():
            if self.log is not None:
                self.log.add(row)
            self.state.row = None
            if on_row is not None and ranks.first:
                on_row(row)
            if due and not self.state.skipped:
                self.save()
        self.callbacks.row(row)
        self._check_skipped()
        if due and not self.state.skipped:
            self.callbacks.checkpoint(self.iteration, checkpoint_folder(self.out, self.iteration))

    def write_model(self) -> Path:
        """The finished model, an adapter added to its weights, in ``out/model``."""
        folder = self.out / "model"

        def write() -> None:
            if self.iteration > self.resumed_at or not (folder / "config.json").exists():
                save_warm_start(folder, self.policy)

        self.setup.ranks.on_first(write)
        return folder

    def learning_rate(self) -> float:
        """Linear warm-up, then linear decay to ``lr_end`` of it at the last update."""
        section = self.setup.config.warmup
        decay = 1 - (1 - section.lr_end) * self.iteration / section.updates
        return section.lr * min(1.0, self.iteration / max(section.lr_warmup, 1)) * decay

    def _step(self) -> dict[str, Any]:
        """One update. Returns its row of metrics."""
        config, ranks = self.setup.config, self.setup.ranks
        section = config.warmup
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.setup.seed_dropout("warmup", self.iteration, *ranks.stream_names)
        actions = section.forward_batch if self.iteration > section.forward_from else 0
        rng = np.random.default_rng(name_key(config.seed, "warmup", self.iteration))
        acting, reflecting = self.data.draw(actions, section.reflect_batch, rng)
        metrics = self._imitate(acting, reflecting)
        return {
            "iteration": self.iteration,
            "warmup/lr": rate,
            **{f"warmup/{name}": value for name, value in metrics.items()},
        }

    @memory_explained("updating the weights", TRAINING)
    def _imitate(self, acting: list[Sample], reflecting: list[Sample]) -> dict[str, float]:
        """One optimizer step on the sum of the mean losses (nats a token) of both kinds.

        Returns each, and the shares of whole actions and reports of progress that are right. A loss or
        gradient that is not finite is never applied: the update is skipped, and has no losses.
        """
        config, ranks, policy = self.setup.config, self.setup.ranks, self.policy
        collation = Collation.of(self.policy, self.model)
        sums: defaultdict[str, float] = defaultdict(float)
        policy.decoders.free_for_update()  # of the last validation
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        rows = self._rows(acting, self.iteration)
        sums |= zero_counts("forward_loss", rows) | zero_counts("reflect_loss", reflecting)
        # Reflections on what acts here share its beginnings: one token tree computes them once.
        together = config.warmup.reflect_on_acted and collation.as_tree
        for samples in ([*rows, *reflecting],) if together else (rows, reflecting):
            for batch in imitation_batches(samples, COEFS, collation, config.train.micro_tokens, ranks):
                with policy.precision():
                    terms, right = imitation_terms(self.model, batch)
                (terms.sum() * ranks.loss_factor).backward()  # type: ignore[no-untyped-call]
                count_losses(sums, batch, terms.detach())
                count_parts(sums, batch, right)
        summed = ranks.sums(dict(sums))
        losses = {name: value for name, value in summed.items() if name.endswith("_loss")}
        finite = all(map(math.isfinite, losses.values()))
        self.before_step()
        norm = apply_gradients(self.model, self.optimizer, ranks, config.warmup.grad_clip, finite=finite)
        self.state.skipped = self.state.skipped + 1 if norm is None else 0
        metrics = {} if norm is None else losses | accuracies(summed)
        metrics["skipped"] = float(self.state.skipped > 0)
        self.model.eval()
        copy_weights(self.model, policy.model)
        policy.weights_changed()
        return metrics

    @torch.no_grad()
    @memory_explained("measuring held-out episodes", SCORING)
    def _measure(self) -> dict[str, float]:
        """Loss and accuracy on the episodes that are held out; nothing without any."""
        if not self.held_out:
            return {}
        ranks, collation = self.setup.ranks, Collation.of(self.policy, self.model)
        rows = self._rows(self.held_out, "held out")
        sums: defaultdict[str, float] = defaultdict(float)
        micro_tokens = self.setup.config.train.micro_tokens
        sums |= zero_counts("forward_loss", rows)
        for batch in imitation_batches(rows, COEFS, collation, micro_tokens, ranks):
            with self.policy.precision():
                terms, right = imitation_terms(self.model, batch)
            count_losses(sums, batch, terms)
            count_parts(sums, batch, right)
        summed = ranks.sums(dict(sums))
        if not math.isfinite(summed["forward_loss"]):
            raise TrainingStopped(
                f"Warmup stopped at update {self.iteration}: the loss on held-out episodes is NaN or "
                f"infinite. Lower warmup.lr or warmup.grad_clip; the checkpoint before is in {self.out}."
            )
        measured = {"loss": summed["forward_loss"], **accuracies(summed)}
        names = {name: f"held_out_{name}" for name in measured}
        return {f"warmup/{names[name]}": value for name, value in measured.items()}

    def _rows(self, acting: list[Sample], name: object) -> list[Sample]:
        """Samples that act, with those of their branches that are drawn under ``name``."""
        most = self.setup.config.warmup.branches
        rng = np.random.default_rng(name_key(self.setup.config.seed, "branches", name))
        return with_branches(acting, most, rng)

    def _check_skipped(self) -> None:
        """Raises TrainingStopped when nothing finite comes any more, or the last update was skipped."""
        last = self.iteration == self.setup.config.warmup.updates
        if self.state.skipped >= MAX_SKIPPED or (self.state.skipped and last):
            raise TrainingStopped(
                f"Warmup stopped at update {self.iteration}: the loss or its gradient was NaN or infinite in "
                f"the last {self.state.skipped} updates, which were not applied. No warm start is written. "
                f"Lower warmup.lr or warmup.grad_clip, and use another folder than {self.out}."
            )

    def _validate(self) -> float:
        prompts = self.setup.prompts_with("progress" in self.setup.config.warmup.forward_modes)
        return validation_success(self.setup, self.context, self.sampler, prompts)

    def kept(self) -> tuple[int, int | None]:
        """The newest checkpoint alone: a warmup only goes on."""
        return 1, None

    def _data(
        self,
        experts: Sequence[Trajectory],
        labelled: Sequence[Trajectory],
        shown: Sequence[Trajectory] | None = None,
    ) -> ImitationData:
        config = self.setup.config
        chat = config.prompt.context == "chat"
        modes = PromptModes(
            config.warmup.forward_modes,
            act=self.setup.prompts_with(progress=False),
            progress=self.setup.prompts_with(progress=True),
            demonstrations=config.prompt.demonstrations,
            seed=config.seed,
            reflect_on_acted=chat and config.warmup.reflect_on_acted,
        )
        return imitation_data(self.context, self.policy.codec, modes, experts, labelled, shown)

    def _taught(self, episodes: Sequence[Trajectory]) -> dict[str, Any]:
        """What there is to imitate, for the manifest."""
        data = self.data
        return {
            "rows": {"forward": len(data.actions), "won": len(data.won), "lost": len(data.lost)},
            "held_out": len(self.held_out),
            "unlabelled": sum(not is_labelled(t) for t in episodes),
        }


def untaught(data: ImitationData, reflects: bool, modes: Sequence[str]) -> list[str]:
    """What the warmup does not teach, as sentences; ``reflects``: the method has a judge.

    ``modes``: warmup.forward_modes.
    """
    lines = []
    if set(modes) <= PRIVILEGED_MODES.keys():
        lines.append(
            f"no prompt that acts is taught, as warmup.forward_modes is [{', '.join(modes)}]; add action or "
            "progress."
        )
    elif not data.actions:
        lines.append("no episode to imitate, so no action is taught; give demos.expert more.")
    if reflects and not (data.won or data.lost or data.on_acted):
        lines.append(
            "no episode with a label, so no reflection is taught and the judge knows nothing. Label them "
            "anew with 'repro-rl demos'; at an API raise api.annotate_tokens where answers were cut off."
        )
    return lines


def zero_counts(loss: str, samples: Sequence[Sample]) -> dict[str, float]:
    """The sums that these samples add to, the same on every rank: their loss, and the counts of parts."""
    if not samples:
        return {}
    counted = any(sample.parts is not None for sample in samples)
    return dict.fromkeys((loss, *(part_names() if counted else ())), 0.0)


def count_losses(sums: defaultdict[str, float], batch: Batch, terms: torch.Tensor) -> None:
    """Add the summed ``terms`` [T] of each kind of tokens in a batch to ``sums``."""
    for kind, name in LOSS_METRICS.items():
        chosen = terms[batch.targets.of_kind(kind)]
        if len(chosen):
            sums[name] += float(chosen.sum())


def count_parts(sums: defaultdict[str, float], batch: Batch, right: torch.Tensor) -> None:
    """Add the counts of ``part_counts`` in a batch to ``sums``."""
    if batch.parts is not None:
        for name, count in part_counts(batch.parts, right.cpu().numpy()).items():
            sums[name] += count


def _actions_untaught(section: WarmupSection) -> list[str]:
    """A sentence where samples of actions are asked for, but would join after the last update."""
    if not section.forward_batch or section.updates > section.forward_from:
        return []
    return [
        f"No update teaches an action: warmup.updates is {section.updates}, and actions join after "
        f"warmup.forward_from={section.forward_from} updates. Lower that, or raise warmup.updates."
    ]
