"""A small model and the work of a small run, for plans that can be checked by hand."""

from __future__ import annotations

from repro_rl.config import RunConfig, load_config
from repro_rl.plan.model_shape import ModelShape
from repro_rl.plan.tokens import TokenTable
from repro_rl.plan.training_setup import TrainingSetup, training_setup
from repro_rl.plan.workload import KnownLengths, Workload, iteration_work

SHAPE = ModelShape("n", 8, 2, 2, 1, 4, 16, 100, True, True)
TABLE = TokenTable(
    action=[10, 20, 30, 40],
    reflect=[50, 70],
    episode_steps=[2, 2],
    action_target=[4] * 4,
    reflect_target=[6, 6],
)


def small_config(*overrides: str) -> RunConfig:
    return load_config(
        None,
        [
            "train={groups: 2, group_size: 4, minibatches: 2, micro_tokens: 100, epochs: 1}",
            "prompt={style: compact, max_prompt_tokens: 30, action_tokens: 4, reflect_new_tokens: 8}",
            "method={name: repro, reflect_share: 0.5}",
            *overrides,
        ],
    )


def small_work(*overrides: str, known: KnownLengths | None = None) -> Workload:
    config = small_config(*overrides)
    limit = config.policy.max_batch_tokens
    return iteration_work(TABLE, config.prompt, config.train, config.method, limit, known or KnownLengths())


def small_training(*overrides: str) -> TrainingSetup:
    config = small_config(*overrides)
    return training_setup(config.policy, config.train, config.needs_reference)
