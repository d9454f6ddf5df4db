"""From settings to the objects a run needs; used by warmup, training and evaluation alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from repro_rl.config import RunConfig
from repro_rl.envs.base import TextEnv
from repro_rl.envs.panel import TaskPanel
from repro_rl.files import write_folder
from repro_rl.policy import TransformersPolicy, build_tiny
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.tiny import TinySize
from repro_rl.rollout import EnvPool
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Trajectory


def set_threads(config: RunConfig) -> None:
    """Threads are a setting: on a busy machine two cost more than they bring (and change the last bits)."""
    if config.policy.threads:
        torch.set_num_threads(config.policy.threads)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def build_prompts(config: RunConfig, progress: bool | None = None) -> PromptBuilder:
    """The prompt builder; ``progress`` overrides what the method asks for."""
    section = config.prompt
    return PromptBuilder(
        TextFormat(
            style=section.style,
            progress=config.method.progress if progress is None else progress,
            think=section.think,
        ),
        history=section.history,
        template_dir=section.template_dir,
        resolution=section.resolution,
    )


def build_pool(config: RunConfig) -> EnvPool:
    return EnvPool(config.env.name, config.env.settings)


def validation_panel(config: RunConfig, pool: EnvPool) -> TaskPanel:
    """The fixed tasks that settings and checkpoints are chosen on."""
    return pool.first.panel(config.eval.validation_split).head(config.eval.validation_tasks)


def forward_sampling(config: RunConfig, temperature: float) -> SamplingSettings:
    return SamplingSettings(max_new_tokens=config.prompt.action_tokens, temperature=temperature)


def reflect_sampling(config: RunConfig, temperature: float) -> SamplingSettings:
    return SamplingSettings(max_new_tokens=config.prompt.reflect_new_tokens, temperature=temperature)


def load_policy(config: RunConfig, path: str | Path, *, training: bool = False) -> TransformersPolicy:
    """A policy from a model folder or hub name with the run's settings; ``training``: to be trained."""
    section = config.policy
    return TransformersPolicy.load(
        path,
        device=section.device,
        dtype=section.dtype,
        training=training,
        chat=section.chat,
        thinking=section.thinking,
        max_batch_tokens=section.max_batch_tokens,
        attention=section.attention,
    )


def tiny_words(config: RunConfig, env: TextEnv, demos: Sequence[Trajectory] = ()) -> set[str]:
    """Words of the tiny model's tokenizer: the environment's, the templates', those of the demonstrations."""
    words = set(env.vocabulary()) | set(build_prompts(config, progress=True).words(env.max_steps))
    for trajectory in demos:
        for step in trajectory.steps:
            for text in (step.observation, step.brief, step.action, step.feedback):
                words.update(text.split())
    return words


def initial_model(config: RunConfig, env: TextEnv, demos: Sequence[Trajectory], folder: Path) -> str | Path:
    """The model before any training: a checkpoint's name, or a tiny model built into ``folder``."""
    if config.policy.model != "tiny":
        return config.policy.model
    if not (folder / "config.json").exists():
        section = config.policy.tiny
        size = TinySize(
            section.hidden, section.layers, section.heads, section.kv_heads, section.ffn, section.positions
        )
        words = tiny_words(config, env, demos)
        write_folder(folder, lambda temporary: build_tiny(temporary, words, size, seed=config.seed))
    return folder
