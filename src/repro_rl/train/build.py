"""From settings to the objects a run needs; used by warmup, training and evaluation alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from repro_rl.config import API, RunConfig
from repro_rl.envs.base import TextEnv
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.files import write_folder
from repro_rl.policy import TransformersPolicy, build_tiny
from repro_rl.policy.base import Policy, Sampler, SamplingSettings
from repro_rl.policy.http import ChatClient, HttpPolicy
from repro_rl.policy.lora import AdapterOff, LoraSettings, WithoutAdapter
from repro_rl.policy.tiny import TinySize
from repro_rl.processes import place
from repro_rl.random_streams import name_key
from repro_rl.rollout import EnvPool
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.checkpoint import find_model, start_model
from repro_rl.train.run_folder import read_manifest
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
            report=section.report,
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


def load_policy(
    config: RunConfig, path: str | Path, *, training: bool = False, resumed: bool = False
) -> TransformersPolicy:
    """A policy from a model folder or hub name with the run's settings; ``training``: to be trained.

    With ``policy.lora``, training puts a new adapter beside the weights, unless ``path`` is a checkpoint of
    the same run (``resumed``). Any other adapter is merged into what is trained.
    """
    if str(path).startswith(API):
        raise ConfigError(f"{path}: an API model has no weights here; it can act, but not be trained.")
    section = config.policy
    policy = TransformersPolicy.load(
        path,
        device=section.device,
        dtype=section.dtype,
        training=training,
        chat=section.chat,
        thinking=section.thinking,
        max_batch_tokens=section.max_batch_tokens,
        attention=section.attention,
        frozen=section.lora.rank > 0,
        packed=section.packed,
    )
    if not training:
        return policy
    if config.train.gradient_checkpointing:
        checkpoint_activations(policy.model)
    if not resumed:
        policy.merge()
        lora = section.lora
        if lora.rank:
            targets = lora.targets if isinstance(lora.targets, str) else tuple(lora.targets)
            policy.adapt(LoraSettings(lora.rank, lora.alpha, targets, lora.dropout), path, config.seed)
    return policy


@dataclass(slots=True, frozen=True)
class Reference:
    """The frozen warm start of an RL run, as far as it is needed: to compare with (KL), to judge with."""

    model: Any = None
    judge: Policy | None = None


def load_reference(config: RunConfig, policy: TransformersPolicy, warm_start: str | Path) -> Reference:
    """The reference of ``policy``."""
    if not config.needs_reference:
        return Reference()
    model: Any
    judge: Policy
    if policy.adapted:  # without its adapter an adapted model is the warm start: no second copy
        model, judge = AdapterOff(policy.model), WithoutAdapter(policy)
    else:
        judge = frozen = load_policy(config, warm_start)
        model = frozen.model.requires_grad_(False)
    return Reference(
        model if config.train.kl.active else None, judge if config.method.judged_by_reference else None
    )


def reference_judge(config: RunConfig) -> Policy | None:
    """The frozen judge of a run that has one, to judge with after it; None: the policy is its own judge.

    Raises CheckpointError when the warm start is not there any more.
    """
    if not config.method.judged_by_reference or config.train.init is None:
        return None
    return load_policy(config, start_model(config.train.init))


def checkpoint_activations(model: Any) -> None:
    """Keep one activation a layer in training; the method's name differs between versions of transformers."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def seed_dropout(config: RunConfig, *names: object) -> None:
    """Dropout is the one thing drawn from torch's own generator: every update seeds it by its name."""
    if config.policy.lora.rank and config.policy.lora.dropout:
        torch.manual_seed(name_key(config.seed, "dropout", *names) >> 1)


def find_agent(path: str | Path, which: str = "last") -> Path:
    """What ``agent_policy`` loads for ``path``: a model folder (see find_model), or ``api:MODEL``.

    The run folder of an API model's evaluation names it in its manifest.
    """
    if str(path).startswith(API):
        return Path(path)
    try:
        return find_model(path, which)
    except CheckpointError:
        agent = read_manifest(Path(path)).get("agent")
        if agent is None:
            raise
        return Path(agent)


def build_sampler(config: RunConfig, policy: TransformersPolicy) -> Sampler:
    """What samples with the weights of ``policy``: itself, or the vLLM that ``policy.backend`` names.

    Raises MissingDependencyError, ConfigError, PreflightError or ApiError when that vLLM cannot be used.
    """
    section = config.policy
    if section.backend == "transformers":
        return policy
    if place()[1] > 1:
        raise ConfigError(
            f"policy.backend={section.backend} is for one training process; with torchrun use "
            "policy.backend=transformers."
        )
    if section.backend == "vllm-server":
        from repro_rl.policy.vllm.server import ServerSampler

        return ServerSampler(policy, section.vllm)
    from repro_rl.policy.vllm.colocated import ColocatedSampler

    prompt = config.prompt
    longest = (
        prompt.max_chat_tokens
        if prompt.context == "chat"
        else max(
            prompt.max_prompt_tokens + prompt.action_tokens,
            prompt.max_reflect_tokens + prompt.reflect_new_tokens,
        )
    )
    return ColocatedSampler(policy, section.vllm, min(longest, policy.positions or longest))


def agent_policy(config: RunConfig, path: Path) -> Policy:
    """A policy to play with: a model folder, or ``api:MODEL`` behind the server of the section ``api``.

    A model folder is sampled from by ``policy.backend``. Raises ConfigError for an API model with compact
    prompts: they hold neither rules nor goal.
    """
    if not str(path).startswith(API):
        return build_sampler(config, load_policy(config, path))
    if config.prompt.style == "compact":
        raise ConfigError(
            "An API model cannot read the compact prompts of tiny models; use a recipe in full style, such "
            "as -c sokoban-qwen3, or prompt.style=full."
        )
    return HttpPolicy(ChatClient(config.api.model_copy(update={"model": str(path).removeprefix(API)})))


def positions_of(policy: Policy) -> int | None:
    """Tokens that the model behind ``policy`` can hold; None where nobody knows, as of an API model."""
    text = getattr(policy, "text", policy)  # a vLLM sampler has the transformers policy beside it
    return getattr(text, "positions", None)


def prompt_limit(config: RunConfig, policy: Policy) -> int:
    """Tokens that a forward prompt may have: the setting, or fewer where the model has fewer positions."""
    limit = config.prompt.max_prompt_tokens
    positions = positions_of(policy)
    return limit if positions is None else max(1, min(limit, positions - config.prompt.action_tokens))


def tiny_words(config: RunConfig, env: TextEnv, demos: Sequence[Trajectory] = ()) -> set[str]:
    """Words of the tiny model's tokenizer: the environment's, the templates', those of the demonstrations."""
    shown = any(mode.startswith("demos") for mode in config.warmup.forward_modes)
    words = set(env.vocabulary())
    words |= build_prompts(config, progress=True).words(env.max_steps, demonstrations=shown)
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
