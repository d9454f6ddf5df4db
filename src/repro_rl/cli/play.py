"""``repro-rl play``: play by hand, or watch the expert or a trained agent."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from repro_rl.cli import complete
from repro_rl.cli.app import app
from repro_rl.cli.options import env_settings, read_run_config, take_plugins
from repro_rl.cli.play_session import play_task
from repro_rl.cli.show import say, show_table, visible
from repro_rl.errors import ConfigError, TaskError

if TYPE_CHECKING:
    from rich.table import Table

    from repro_rl.envs import TextEnv
    from repro_rl.types import Trajectory


@app.command()
def play(
    env: Annotated[
        str, typer.Argument(help="environment name, e.g. sokoban", autocompletion=complete.environments)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="environment settings, with --agent those of the run; plugins=[MODULE]",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="panel to take the task from  \\[default: test, else the first that has tasks]"),
    ] = None,
    task: Annotated[str, typer.Option(help="task id or position in the panel")] = "0",
    expert: Annotated[bool, typer.Option("--expert", help="watch the expert")] = False,
    agent: Annotated[
        str | None,
        typer.Option(
            help="watch an agent: a run folder, or with --config a model folder, GGUF file or hub name"
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="with --agent: settings  \\[default: those of the run]",
            autocompletion=complete.recipes,
        ),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="with --agent: best, last, warm-start or an iteration")
    ] = "last",
) -> None:
    """Play a task yourself, or watch the expert or a trained agent, with progress at every step.

    Actions are typed, or chosen by their number. Sokoban takes the arrow keys. u takes a step back, q ends.
    """
    if agent is not None and expert:
        raise ConfigError(f"--expert and --agent {agent} name two players of one episode; give one.")
    if agent is None and source is not None:
        raise ConfigError("--config belongs to --agent: settings decide how an agent is loaded and asked.")
    if agent is not None:
        watch_agent(agent, source, checkpoint, split, task, overrides or [])
        return
    from repro_rl.envs.checker import first_split

    played = open_env(env, take_plugins(overrides or []))
    split = split or first_split(played)
    play_task(played, pick_task(played, split, task), expert)


def open_env(name: str, overrides: list[str]) -> TextEnv:
    """The environment in the style that it has for people, where it has one, with the user's settings."""
    from repro_rl.envs.base import ENVS, TextEnv, make

    settings = env_settings(name, overrides)
    factory = ENVS.get(name)
    for_people = factory.for_people if isinstance(factory, type) and issubclass(factory, TextEnv) else {}
    return make(name, **{**for_people, **settings})


def pick_task(env: TextEnv, split: str, task: str) -> str:
    """A task id: ``task`` itself, or the panel's task at that position."""
    from repro_rl.envs.base import panel_of

    panel = panel_of(env, split)
    if task.isdigit():
        if int(task) >= len(panel):
            raise TaskError(
                f"Panel {panel.label()} has no task {task}; positions go from 0 to {len(panel) - 1}."
            )
        return panel.ids[int(task)]
    return task


def watch_agent(
    agent: str, source: str | None, checkpoint: str, split: str | None, task: str, overrides: list[str]
) -> None:
    """One episode of an agent: its actions, and online, retrospective and true progress."""
    from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest
    from repro_rl.run.loading import check_is_run_folder
    from repro_rl.run.model_paths import find_agent
    from repro_rl.run.setup import set_up

    model = find_agent(agent, checkpoint)
    if source is None:
        check_is_run_folder(agent)
    config = read_run_config(agent, source, overrides)
    section = config.eval
    with closing(set_up(config)) as setup:
        judge = Judge(setup.reflection_sampling(section.temperature), setup.frozen_judge(model))
        request = RolloutRequest(pick_task(setup.pool.first, split or section.split, task), 0)
        with closing(setup.agent(model)) as policy:
            actor = Actor(policy, setup.prompts, setup.action_sampling(section.temperature))
            context = setup.context(policy.codec)
            (trajectory,) = context.play([request], actor, judge, PlayOptions(("play", section.seed)))
    show_table(_step_table(trajectory))
    if trajectory.error is not None:
        say(f"The episode broke off: {trajectory.error}")
    if trajectory.reflection is not None and trajectory.reflection.defects:
        say(f"The reflection could not be read: {', '.join(trajectory.reflection.defects)}")


def _step_table(trajectory: Trajectory) -> Table:
    """One row a step: what was seen and done, and the three progress values in percent."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{trajectory.task_id}: {'solved' if trajectory.won else 'not solved'}", title_justify="left"
    )
    for column in ("step", "observation", "action", "online", "retrospective", "true"):
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
    return table
