"""An RL run from its first iteration to its last: what happens between iterations, and when it ends early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.errors import TrainingStopped
from repro_rl.interrupts import deferred
from repro_rl.run.callbacks import Callback
from repro_rl.run.folder import writing_run
from repro_rl.run.model_paths import checkpoint_folder
from repro_rl.run.setup import join_ranks, set_up
from repro_rl.train.checkpointed import OnText, ending
from repro_rl.train.rl import RLRun

OnRow = Callable[[dict[str, Any]], None]


def run_training(
    config: RunConfig,
    out: str | Path,
    on_row: OnRow | None = None,
    on_text: OnText | None = None,
    callbacks: Sequence[Callback] = (),
) -> RLRun:
    """Train until the iterations or environment steps are used up; repeat the call to continue a killed run.

    ``callbacks``: told of the run beside those of the settings. Started on several ranks, all share the work
    and the first one alone writes and reports. Raises TrainingStopped when an alarm persists; the checkpoint
    before it is kept. It may be interrupted, lose a server of the sampler (ApiError) or be unable to write a
    file (OSError). Then what was trained so far is saved first, as far as possible. Raises RankLostError when
    another rank failed or was lost, PreflightError when another process writes ``out``.
    """
    ranks = join_ranks(config)
    alone = ranks.alone_on_first(lambda: writing_run(Path(out)))
    with ranks.guard(), alone, closing(set_up(config)) as setup:
        run = RLRun(setup, out, on_text, callbacks)
        with closing(run.sampler), ending(run):
            _train(run, on_row)
    return run


def _train(run: RLRun, on_row: OnRow | None) -> None:
    """Iterations until the run is done, with alarms, validations and checkpoints between them."""
    if run.state.row is not None:  # the last command was interrupted before the end of its iteration
        _finish(run, run.state.row, on_row)
    begin = run.iteration
    while not run.done():
        _finish(run, run.step(), on_row)
    train = run.setup.config.train
    if train.env_steps is not None and begin < run.iteration < train.iterations:
        run.notify(
            f"Ended after iteration {run.iteration} of {train.iterations}: "
            f"train.env_steps={train.env_steps:,} is reached ({run.env_steps:,} steps were played)."
        )


def _finish(run: RLRun, row: dict[str, Any], on_row: OnRow | None) -> None:
    """The end of an iteration: validation, log, alarms, checkpoint. Raises TrainingStopped."""
    train, last = run.setup.config.train, run.done()
    if train.validate_every and (run.iteration % train.validate_every == 0 or last):
        run.validate(row)
    due = run.iteration % train.save_every == 0 or "validation/success" in row or last
    with deferred():
        warnings, reason = run.alarms.check(row)
        if run.log is not None:
            run.log.add(row)
            if on_row is not None:
                on_row(row)
        run.state.row = None
        for warning in warnings:
            run.notify(f"iteration {run.iteration}: {warning}")
        if due and reason is None:
            run.save()
    run.callbacks.row(row)
    if reason is not None:
        raise TrainingStopped(
            f"Stopped after iteration {run.iteration}: {reason}. "
            f"Checkpoints are in {run.out / 'checkpoints'}; the limits are in the section 'alarms'."
        )
    if due:
        run.callbacks.checkpoint(run.iteration, checkpoint_folder(run.out, run.iteration))
