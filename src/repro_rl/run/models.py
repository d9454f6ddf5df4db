"""Loading and building models: the one in training, its frozen reference, and what samples or acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from repro_rl.config import PolicySection, TinySection, is_api
from repro_rl.dist.launcher import rank_and_world, refuse_ranks
from repro_rl.errors import ConfigError
from repro_rl.files import write_folder
from repro_rl.policy import TransformersPolicy, build_tiny
from repro_rl.policy.base import Policy, Sampler
from repro_rl.policy.exactness import check_exact
from repro_rl.policy.loading.lora import check_targets
from repro_rl.policy.model.adapter import AdapterOff
from repro_rl.policy.model.capabilities import do_as
from repro_rl.policy.transformers_policy import AdapterOffPolicy


@dataclass(slots=True, frozen=True)
class Reference:
    """The frozen warm start of an RL run, as far as it is needed."""

    model: Any = None  # to compute the KL with
    judge_policy: Policy | None = None  # to reflect with


def load_policy(
    section: PolicySection, path: str | Path, *, training: bool = False, tried: bool = False
) -> TransformersPolicy:
    """A policy from a model folder or hub name; ``training``: its weights, or an adapter, will be trained.

    ``tried``: a model of the same architecture was tried out before (see ``check_exact``).
    Raises ConfigError for an API model. Raises CheckpointError when the model cannot be loaded or is not
    exact, or when a file of a folder made here is damaged (see ``checksums``).
    """
    if is_api(path):
        raise ConfigError(
            f"{path}: an API model has no weights here; it can act, but not be "
            "trained. Give a model folder or a hub name as policy.model or train.init."
        )
    policy = TransformersPolicy.load(path, section, training=training)
    # The architectures of the packed engine are known, and tested; an adapter under it may be of any kind.
    if not tried and (policy.adapted or not policy.uses_packed):
        check_exact(policy, path)
    return policy


def load_trained(
    section: PolicySection,
    path: str | Path,
    *,
    resumed: bool,
    seed: int,
    gradient_checkpointing: bool = False,
) -> TransformersPolicy:
    """The policy that is to be trained.

    With ``policy.lora``, a new adapter is put beside the weights, unless ``path`` is a checkpoint of the same
    run (``resumed``). Any other adapter is merged into what is trained. Raises as ``load_policy``.
    """
    policy = load_policy(section, path, training=True)
    if gradient_checkpointing:
        checkpoint_activations(policy.model)
    if resumed and policy.adapted:
        check_targets(policy.model)
    if not resumed:
        policy.merge()
        if section.lora.rank:
            policy.adapt(section.lora, path, seed)
    return policy


def checkpoint_activations(model: Any) -> None:
    """Keep one activation a layer in training, and compute the others again."""
    # Its name differs between the versions of transformers that we support.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def load_reference(
    section: PolicySection, policy: TransformersPolicy, warm_start: str | Path, *, kl: bool, judge: bool
) -> Reference:
    """The reference of ``policy``, as far as the KL divergence (``kl``) or the judge needs it.

    It is sampled as ``policy``, which was tried out.
    """
    if not (kl or judge):
        return Reference()
    if policy.adapted:  # without its adapter an adapted model is the warm start: no second copy
        return Reference(
            AdapterOff(policy.model) if kl else None, AdapterOffPolicy(policy) if judge else None
        )
    if policy.device.type == "cpu":  # it computes as the policy does, so that their KL begins at 0
        kind = str(policy.model.dtype).removeprefix("torch.")
        section = section.model_copy(update={"dtype": kind})
    frozen = load_policy(section, warm_start, tried=True)
    do_as(frozen.model, policy.model)
    frozen.model.requires_grad_(False)
    return Reference(frozen.model if kl else None, frozen if judge else None)


def build_sampler(section: PolicySection, policy: TransformersPolicy, max_tokens: int) -> Sampler:
    """What samples with the weights of ``policy``: itself, or the vLLM that ``policy.backend`` names.

    ``max_tokens``: of the longest prompt and completion together. Raises MissingDependencyError, ConfigError,
    PreflightError or ApiError when that vLLM cannot be used.
    """
    if section.backend == "transformers":
        return policy
    refuse_ranks(section.backend, rank_and_world()[1])
    if section.backend == "vllm-server":
        from repro_rl.policy.vllm.server import ServerSampler

        return ServerSampler(policy, section.vllm)
    from repro_rl.policy.vllm.colocated import ColocatedSampler

    return ColocatedSampler(policy, section.vllm, max_tokens)


def tiny_model(folder: Path, words: Sequence[str] | set[str], size: TinySection, seed: int) -> Path:
    """The embedded model before any training, built into ``folder`` unless it is there."""
    if not (folder / "config.json").exists():
        write_folder(folder, lambda temporary: build_tiny(temporary, words, size, seed=seed))
    return folder


def parameter_count(model: torch.nn.Module) -> int:
    """Weights of a model, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())
