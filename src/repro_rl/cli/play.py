"""Playing by hand, and watching."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from repro_rl.cli.show import console, visible
from repro_rl.envs.base import ENVS, TextEnv, make
from repro_rl.errors import ConfigError, TaskError


def pick_task(env: TextEnv, split: str, task: str) -> str:
    """A task id: ``task`` itself, or the panel's task at that position."""
    panel = env.panel(split)
    if task.isdigit():
        if int(task) >= len(panel):
            raise TaskError(
                f"Panel {panel.label()} has no task {task}; positions go from 0 to {len(panel) - 1}."
            )
        return panel.ids[int(task)]
    return task


def env_settings(overrides: list[str]) -> dict[str, Any]:
    """KEY=VALUE texts as keyword arguments of ``make``; values are YAML. Raises ConfigError."""
    settings = {}
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign:
            raise ConfigError(f"{override!r} is not KEY=VALUE.")
        settings[key] = yaml.safe_load(value)
    return settings


def run_play(
    name: str, overrides: list[str], split: str, task: str, expert: bool, agent: Path | None, checkpoint: str
) -> None:
    if agent is not None:
        watch_agent(agent, checkpoint, split, task)
        return
    settings = env_settings(overrides)
    settings = {**getattr(ENVS.get(name), "for_people", {}), **settings}
    env = make(name, **settings)
    observation, info = env.reset(options={"task": pick_task(env, split, task)})
    console.print(visible(f"{info['task_id']}: {info['goal']}"), highlight=False, markup=False)
    ended = False
    while not ended:
        console.print(visible(observation), highlight=False, markup=False)
        actions = ", ".join(info["admissible"])
        console.print(visible(f"actions: {actions}"), style="dim", highlight=False, markup=False)
        if expert:
            action = env.expert()
            if action is None:
                console.print("The expert sees no plan from here.")
                return
            console.print(visible(f"> {action}"), highlight=False, markup=False)
        else:
            console.print("> ", end="")
            line = sys.stdin.readline()
            if not line or line.strip() in {"q", "quit", "exit"}:
                return
            action = env.shortcuts.get(line.strip(), line.strip())
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        progress = "unknown" if info["progress"] is None else f"{100 * info['progress']:.0f} %"
        note = "" if info["valid"] else "   (not possible)"
        console.print(f"reward {reward:g}   true progress {progress}{note}", highlight=False)
    console.print(visible(observation), highlight=False, markup=False)
    console.print("Solved." if info["won"] else "Not solved.")


def watch_agent(run: Path, checkpoint: str, split: str, task: str) -> None:
    """One episode of a trained agent: its actions, and online, retrospective and true progress."""
    from rich.table import Table
    from rich.text import Text

    from repro_rl.config import load_config
    from repro_rl.rollout import Job
    from repro_rl.train.build import (
        agent_policy,
        build_pool,
        build_prompts,
        find_agent,
        forward_sampling,
        reference_judge,
        reflect_sampling,
        set_threads,
    )
    from repro_rl.train.contexts import play_jobs

    if not (run / "config.yaml").exists():
        raise ConfigError(f"{run} is not a run folder: config.yaml is missing.")
    config = load_config(run / "config.yaml")
    set_threads(config)
    pool, prompts = build_pool(config), build_prompts(config)
    policy = agent_policy(config, find_agent(run, checkpoint))
    temperature = config.eval.temperature
    (trajectory,) = play_jobs(
        config,
        pool,
        [Job(pick_task(pool.first, split, task), 0)],
        policy,
        prompts,
        forward_sampling(config, temperature),
        reflect_sampling(config, temperature),
        stream=("play", config.eval.seed),
        judged_by=reference_judge(config),
    )
    table = Table(
        title=f"{trajectory.task_id}: {'solved' if trajectory.won else 'not solved'}", title_justify="left"
    )
    for column in ("t", "observation", "action", "online", "retrospective", "true"):
        table.add_column(column)
    judged = trajectory.reflection.values if trajectory.reflection else None
    for step in trajectory.steps:
        table.add_row(
            str(step.t),
            Text(visible(step.observation)),
            Text(visible(step.action) + ("" if step.valid else " (not possible)")),
            "–" if step.online is None else str(step.online),
            str(judged[step.t - 1]) if judged else "–",
            "–" if step.truth is None else f"{100 * step.truth:.0f}",
        )
    console.print(table)
    if trajectory.error is not None:
        console.print(visible(f"The episode broke off: {trajectory.error}"), highlight=False, markup=False)
    if trajectory.reflection is not None and trajectory.reflection.defects:
        console.print(f"The reflection could not be read: {', '.join(trajectory.reflection.defects)}")
