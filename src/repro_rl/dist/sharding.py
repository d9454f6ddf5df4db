"""Weights, gradients and optimizer sharded over the ranks while training: PyTorch's fully_shard ("FSDP2").

Asked for by an accelerate configuration of distributed type FSDP, version 2. The trained weights are then a
second model, of which every rank has a shard. Episodes are still played by a whole copy in each rank, which
gets the new weights after every update. Forward and backward passes are collective here, so all ranks need
equally many micro-batches (see ``train.rank_rows.equal_counts``).
"""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from repro_rl.errors import ConfigError


def resharding() -> bool | None:
    """What the launcher asks for: None no sharding; else whether weights are split again after each forward.

    True keeps the least memory (as ZeRO-3), False gathers the weights once for forward and backward (ZeRO-2).
    Raises ConfigError for what this trainer does not do.
    """
    if _set("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError(
            "This trainer does not run under DeepSpeed, whose engine fixes the micro-batches of a step. The "
            "accelerate configuration fsdp2.yaml splits the same as its ZeRO stage 3, fsdp2-zero2.yaml as "
            "stage 2 (docs/distributed.md)."
        )
    if not _set("ACCELERATE_USE_FSDP"):
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("Only fsdp_version: 2 is supported; see docs/distributed.md for configurations.")
    if _set("FSDP_OFFLOAD_PARAMS"):
        raise ConfigError("fsdp_offload_params is not supported; set it to false.")
    return _set("FSDP_RESHARD_AFTER_FORWARD", "true")


def _set(name: str, default: str = "false") -> bool:
    return os.environ.get(name, default).lower() in ("true", "1", "full_shard")


def check_sharding(*, lora_rank: int, optimizer: str) -> None:
    """Raises ConfigError for settings that do not go with sharded weights."""
    if lora_rank:
        raise ConfigError("policy.lora does not go with FSDP: adapters are small, so use ddp.yaml instead.")
    if optimizer != "adamw":
        raise ConfigError(f"train.optimizer={optimizer} cannot be split; use adamw with FSDP.")


def sharded_copy(model: Any, reshard: bool, world: int) -> Any:
    """A copy of ``model`` to train, of which each of ``world`` ranks has a shard."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (world,))
    trained = copy.deepcopy(model)
    layers = set(model._no_split_modules or ())  # transformers: the layers that devices may divide
    for module in list(trained.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(trained, mesh=mesh, reshard_after_forward=reshard)
    return trained


@torch.no_grad()
def copy_weights(trained: Any, whole: Any) -> None:
    """Give the trained weights to the whole copy. All ranks must call it; nothing to do for one model."""
    if trained is whole:
        return
    for source, target in zip(trained.parameters(), whole.parameters(), strict=True):
        target.copy_(whole_tensor(source))


def whole_tensor(tensor: Any) -> torch.Tensor:
    """The whole of a sharded tensor, for which all ranks must call it; any other tensor as it is."""
    whole: torch.Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole


def like_parameter(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    """``value`` sharded like ``parameter``, where that is sharded and of the same shape."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    sharded: torch.Tensor = distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements
    )
    return sharded
