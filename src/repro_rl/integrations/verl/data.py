"""Data files for verl: which task is played when, and rows for its supervised trainer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from repro_rl.demos.environment import check_environment
from repro_rl.demos.store import is_labelled, load_demos
from repro_rl.envs.base import TextEnv
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ConfigError, DataError, MissingDependencyError
from repro_rl.files import replacing
from repro_rl.policy.tokens.message_form import PLAIN, Message, MessageForm
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.context.targets import expert_text
from repro_rl.rollout.episode import labels_of
from repro_rl.rollout.reflection import reflection_prompt
from repro_rl.run.setup import Setup
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train import hold_out, task_schedule
from repro_rl.types import Trajectory

AGENT = "repro_rl"  # the agent loop's name in verl
FIELD = "repro_rl"  # ours among the extra fields of verl's samples
TRAIN_FILE, VALIDATION_FILE = "train.parquet", "validation.parquet"

Row = dict[str, Any]


def task_rows(setup: Setup) -> tuple[list[Row], list[Row]]:
    """Rows of the training and of the validation file.

    Training rows are in the order of play, ``train.groups`` an iteration, by the schedule of our own trainer:
    verl must not shuffle them. ``data_source`` is the panel's label, so that verl's validation figures carry
    the panel's digest in their names.
    """
    config = setup.config
    train, panel = config.train, setup.panel(config.train.split)
    rows = [
        _task_row(setup, panel, "train", task, iteration, group)
        for iteration in range(1, train.iterations + 1)
        for group, task in enumerate(task_schedule(panel.ids, config.seed, iteration, train.groups))
    ]
    held_out = setup.validation_panel()
    return rows, [
        _task_row(setup, held_out, "validation", task, 0, position) for position, task in enumerate(held_out)
    ]


def _task_row(setup: Setup, panel: TaskPanel, stage: str, task: str, iteration: int, position: int) -> Row:
    config = setup.config
    return {
        "prompt": [{"role": "user", "content": task}],  # verl wants one; the agent loop builds its own
        "data_source": panel.label(),
        "agent_name": AGENT,
        "reward_model": {"style": "environment", "ground_truth": task},
        "extra_info": {"index": (max(iteration, 1) - 1) * config.train.groups + position},
        "stage": stage,
        "task": task,
        "iteration": iteration,
        "group": position,
        "env": config.env.name,
        "settings": json.dumps(config.env.settings, sort_keys=True, default=str),
        "split": panel.split,
        "digest": panel.digest,
    }


def check_rows(setup: Setup, train: Row, validation: Row) -> list[str]:
    """Labels of the panels that ``train`` and ``validation``, one row of each file, were written from.

    Raises DataError when these are not the panels that the settings and the data give here.
    """
    panels = (setup.panel(setup.config.train.split), setup.validation_panel())
    for row, panel in zip((train, validation), panels, strict=True):
        if row["digest"] != panel.digest:
            raise DataError(
                f"was written for {row['data_source']}, but here the panel is {panel.label()}; the settings "
                "or the data of the environment differ. Write the files again with 'repro-rl verl data'.",
                record=row["stage"],
                field="digest",
            )
    return [panel.label() for panel in panels]


def sft_rows(setup: Setup, demos: Path, form: MessageForm = PLAIN) -> list[Row]:
    """One row a step, in each of ``warmup.forward_modes``, and one a labelled reflection, as chat messages.

    Targets are those of our own warmup. Where a mistake was executed, the expert's answer is imitated; a dead
    end has no row. Episodes of ``warmup.held_out`` are left out. The supervised trainer of verl trains on
    every assistant turn, so every row has one. ``form``: of the messages, see ``rendering.row_form``. Prompts
    are not cut to a token limit here (that needs the tokenizer): set verl's ``data.max_length``.

    Raises DataError for missing demonstrations, and ConfigError for those of another environment, and for a
    mode other than action and progress. Raises PreflightError where ``warmup.held_out`` leaves no episode to
    train on.
    """
    check_environment(demos, setup.config.env)
    experts, labelled = load_demos(demos)
    experts, _ = hold_out(experts, setup.config.warmup.held_out)
    env, thinking = setup.pool.first, setup.config.policy.thinking
    rows: list[Row] = []

    def add(kind: str, trajectory: Trajectory, prompt: str, target: str) -> None:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": target}]
        rows.append(_sft_row(kind, trajectory, form.messages(turns), thinking))

    for mode in setup.config.warmup.forward_modes:
        if mode not in ("action", "progress"):
            raise ConfigError(f"warmup.forward_modes has {mode!r}; verl's rows take 'action' and 'progress'.")
        prompts = setup.prompts_with(progress=mode == "progress")
        for trajectory in filter(is_labelled, experts) if mode == "progress" else experts:
            for prompt, target in _action_texts(trajectory, prompts, env):
                add("forward", trajectory, prompt, target)
    prompts = setup.prompts_with(progress=True)
    for trajectory in filter(is_labelled, (*experts, *labelled)):
        values = labels_of(trajectory)
        prompt = reflection_prompt(trajectory, prompts, env.instructions)
        add("reflect", trajectory, prompt, prompts.reflection_target(values))
    return rows


def _action_texts(trajectory: Trajectory, prompts: PromptBuilder, env: TextEnv) -> Iterator[tuple[str, str]]:
    """(prompt, target) of every step that has one, the episode played again for what was admissible."""
    for inputs, step in replayed(env, trajectory):
        target = expert_text(step, prompts)
        if target is not None:
            yield prompts.act(inputs), target


def _sft_row(kind: str, trajectory: Trajectory, messages: list[Message], thinking: bool) -> Row:
    return {
        "messages": messages,
        "enable_thinking": thinking,
        "kind": kind,
        "task": trajectory.task_id,
        "won": trajectory.won,
    }


def require_pyarrow() -> None:
    """Raise MissingDependencyError where Parquet files cannot be written: said before anything is."""
    if find_spec("pyarrow") is None:
        raise MissingDependencyError(
            "Parquet files need pyarrow, which the verl environment has (make verl-setup); or: "
            "pip install pyarrow"
        )


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as one Parquet file, whole or not at all.

    Raises MissingDependencyError without pyarrow, and DataError without rows.
    """
    require_pyarrow()
    import pyarrow
    import pyarrow.parquet

    if not rows:
        raise DataError("there are no rows to write", file=path)
    with replacing(path) as handle:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), handle)


def write_tasks(setup: Setup, folder: Path) -> list[str]:
    """Write both task files into ``folder``. Returns a line on each."""
    files: Iterable[tuple[str, list[Row]]] = zip((TRAIN_FILE, VALIDATION_FILE), task_rows(setup), strict=True)
    lines = []
    for name, rows in files:
        write_parquet(folder / name, rows)
        lines.append(f"{folder / name}: {len(rows)} rows of {rows[0]['data_source']}")
    return lines
