"""Free and guided reflections of one model on the same episodes: validity, quality, tokens, processor time.

``python benchmarks/reflection_forms.py --model FOLDER --recipe sokoban-tiny [--episodes 60] [--greedy]``: one
thread, no GPU. A noisy expert plays the first tasks of the validation panel (shares 0, 0.5 and 1 of random
actions). The model reflects on every episode in both forms, each with the recipe's limits. Quality is that of
the valid reflections, against the environment's true progress. With ``prompt.context=window``.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from side_by_side import versions

from repro_rl.config import load_config
from repro_rl.demos.collect import play
from repro_rl.envs.base import TextEnv
from repro_rl.policy import SamplingSettings
from repro_rl.random_streams import name_key
from repro_rl.rollout import Actor
from repro_rl.rollout.record import trajectory_record
from repro_rl.rollout.reflection import reflect
from repro_rl.run.models import load_policy
from repro_rl.run.setup import Setup, set_up
from repro_rl.study.progress import progress_quality
from repro_rl.types import Reflection, Trajectory

NOISES = (0.0, 0.5, 1.0)
QUALITY = ("mae_success", "mae_failure", "spearman_success", "spearman_failure", "pooled_spearman_failure")


def played(env: TextEnv, tasks: list[str], count: int) -> list[Trajectory]:
    """``count`` episodes with steps, the noises in turn."""
    rng = np.random.default_rng(name_key("reflection_forms"))
    episodes = []
    for number in range(count):
        trajectory = play(env, tasks[number % len(tasks)], NOISES[number % len(NOISES)], rng)
        trajectory.rollout = number  # names the random stream of its reflection
        episodes.append(trajectory)
    return [trajectory for trajectory in episodes if trajectory.steps]


def judged(
    setup: Setup, actor: Actor, episodes: list[Trajectory], limit: int
) -> tuple[list[Trajectory], float]:
    """Copies with reflections, and the processor seconds that these took."""
    copies = copy.deepcopy(episodes)
    begin = time.process_time()
    reflect(
        copies,
        actor,
        instructions=setup.pool.first.instructions,
        stream="reflection_forms",
        max_prompt_tokens=limit,
    )
    return copies, time.process_time() - begin


def line(form: str, episodes: list[Trajectory], seconds: float) -> str:
    """The figures of one form."""
    reflections: list[Reflection] = [t.reflection for t in episodes if t.reflection is not None]
    quality = progress_quality([trajectory_record(t, 0) for t in episodes], "retrospective")
    figures = [quality[name] for name in QUALITY]
    defects = Counter(defect for reflection in reflections for defect in reflection.defects)
    return (
        f"{form:<8}{np.mean([r.values is not None for r in reflections]):>7.0%}"
        f"{np.mean([r.completion.tokens for r in reflections]):>9.1f}"
        f"{np.mean([r.completion.sampled for r in reflections]):>9.1f}{seconds:>9.1f}"
        + "".join(f"{'-':>9}" if value is None else f"{value:>9.2f}" for value in figures)
        + f"  {', '.join(f'{name} {count}' for name, count in defects.most_common(4))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder")
    parser.add_argument("--recipe", default="sokoban-tiny")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--greedy", action="store_true", help="temperature 0, not 1")
    parser.add_argument("settings", nargs="*", metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setups = {
        form: set_up(load_config(arguments.recipe, [*arguments.settings, f"prompt.reflect_form={form}"]))
        for form in ("free", "guided")
    }
    setup = setups["free"]
    prompt = setup.config.prompt
    panel = setup.panel(setup.config.eval.validation_split, arguments.tasks)
    episodes = played(setup.pool.first, list(panel.ids), arguments.episodes)
    policy = load_policy(setup.config.policy, arguments.model)
    won = sum(trajectory.won for trajectory in episodes)
    print(
        f"{arguments.model.name}, {arguments.recipe}, {panel.label()}: {len(episodes)} episodes, {won} won, "
        f" {np.mean([t.length for t in episodes]):.1f} steps; temperature "
        f"{0 if arguments.greedy else 1}; {versions('torch', 'transformers')}"
    )
    names = ("valid", "tokens", "sampled", "seconds", "mae won", "mae lost", "rho won", "rho lost", "pooled")
    print(f"{'':<8}{names[0]:>7}" + "".join(f"{name:>9}" for name in names[1:]) + "  defects")
    for form, each in setups.items():
        sampling = SamplingSettings(prompt.reflect_new_tokens, 0.0 if arguments.greedy else 1.0)
        actor = Actor(policy, each.prompts, sampling)
        print(line(form, *judged(each, actor, episodes, prompt.max_reflect_tokens)), flush=True)


if __name__ == "__main__":
    main()
