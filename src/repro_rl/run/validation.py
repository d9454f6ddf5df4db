"""Success on the fixed validation panel, which settings and checkpoints are chosen on."""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.policy.base import Policy
from repro_rl.rollout.act import Actor, PlayOptions, RolloutRequest
from repro_rl.rollout.context import Context
from repro_rl.rollout.counts import success_rate
from repro_rl.run.setup import Setup
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Trajectory


def validation_success(setup: Setup, context: Context, policy: Policy, prompts: PromptBuilder) -> float:
    """Share of won episodes, 0..1, one a task, at the validation temperature. Ranks divide the tasks."""
    section = setup.config.eval
    actor = Actor(policy, prompts, setup.action_sampling(section.validation_temperature))
    options = PlayOptions(stream=("panel", section.seed))

    def play(tasks: list[str]) -> list[Trajectory]:
        return context.play(panel_requests(tasks, 1), actor, None, options)

    return success_rate(setup.ranks.play_tasks(setup.validation_panel().ids, play))


def panel_requests(tasks: Sequence[str], rollouts: int) -> list[RolloutRequest]:
    """``rollouts`` episodes of every task, in panel order."""
    return [RolloutRequest(task, number) for task in tasks for number in range(rollouts)]
