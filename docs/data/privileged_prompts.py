"""How well warm starts read the prompts of a second scoring: ``privileged_prompts.py RECIPE MODEL...``.

Two measures for each model, in nats an answer. The log-prob of an expert's answers in 150 episodes of the
validation tasks, by mode of ``warmup.forward_modes``. And the gain of the model's own answers in the first
iteration, of won and of lost episodes (``rollout/hindsight_gain``, ``rollout/teacher_gain``).
"""

from __future__ import annotations

import sys
from contextlib import closing
from tempfile import TemporaryDirectory

import torch

from repro_rl.config import RunConfig, load_config
from repro_rl.demos import collect_demos
from repro_rl.run.models import load_policy
from repro_rl.run.setup import set_up
from repro_rl.train import Collation, PromptModes, RLRun, imitation_batches, imitation_data
from repro_rl.train.loss import imitation_terms
from repro_rl.types import TokenKind, Trajectory

MODES = ("action", "privileged-end", "privileged-reflection")
METHODS = {"hcapo": "hindsight", "self-distill": "teacher"}  # method -> its scoring
EPISODES = 150


def episodes(config: RunConfig) -> list[Trajectory]:
    """The expert's episodes, of other tasks than those that are taught."""
    unseen = {"split": "validation", "expert": EPISODES, "winning": 0, "failing": 0}
    with closing(set_up(config)) as setup:
        tasks = setup.panel("validation").ids
        section = config.demos.model_copy(update=unseen)
        return collect_demos(setup.pool.first, tasks, section, seed=1)[0]


@torch.no_grad()
def expert_log_prob(config: RunConfig, model: str, experts: list[Trajectory], mode: str) -> float:
    """Mean log-prob of an expert's answer behind the prompts of a mode."""
    with closing(set_up(config)) as setup:
        policy = load_policy(config.policy, model)
        builders = (setup.prompts_with(progress) for progress in (False, True))
        modes = PromptModes((mode,), *builders, demonstrations=1, seed=0)
        rows = imitation_data(setup.context(policy.codec), policy.codec, modes, experts, []).actions
        collation = Collation.of(policy, policy.model)
        batches = imitation_batches(rows, {TokenKind.ACT: 1.0}, collation, config.train.micro_tokens)
        loss = sum(float(imitation_terms(policy.model, batch)[0].sum()) for batch in batches)
        return -loss * sum(int(row.trained.sum()) for row in rows) / len(rows)  # a token's mean, an answer's


def own_gains(config: RunConfig, name: str) -> dict[str, float]:
    """Mean gain of the model's own answers in the first iteration, of won and of lost episodes."""
    with TemporaryDirectory() as folder, closing(set_up(config)) as setup:
        run = RLRun(setup, folder)
        groups = run.rollout(1)
        assert run.scorer is not None
        run.scorer.score(groups, config.method)
        gains: dict[str, list[float]] = {"won": [], "lost": []}
        for trajectory in (t for group in groups for t in group.trajectories):
            for answer in (step.completion for step in trajectory.steps):
                if name in answer.scored and answer.token_ids:
                    gain = float((answer.scored[name] - answer.logprobs).sum())
                    gains["won" if trajectory.won else "lost"].append(gain)
        return {outcome: sum(part) / len(part) for outcome, part in gains.items() if part}


def main(recipe: str, *models: str) -> None:
    config = load_config(recipe, [])
    experts = episodes(config)
    for model in models:
        for mode in MODES:
            print(f"{model} {mode}: {expert_log_prob(config, model, experts, mode):.2f}", flush=True)
        for method, name in METHODS.items():
            chosen = load_config(recipe, [f"method={method}", f"train.init={model}"])
            found = ", ".join(f"{part} {gain:.2f}" for part, gain in own_gains(chosen, name).items())
            print(f"{model} {method}: {found}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
