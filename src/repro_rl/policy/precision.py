"""Which device a model lies on, and in which precision its weights and forward passes are."""

from __future__ import annotations

import torch

from repro_rl.errors import ConfigError


def choose_precision(
    dtype: str, device: str, training: bool, frozen: bool = False
) -> tuple[torch.dtype, bool]:
    """Dtype of the weights, and whether forward passes run under bfloat16 autocast.

    "auto": float32 on CPU. On a GPU, bfloat16 weights unless they are trained: a step of AdamW at lr 1e-6 is
    lost in their rounding, so float32 weights are trained under autocast. ``frozen`` weights, beside which a
    float32 adapter is trained, stay bfloat16. Raises ConfigError for an unknown name.
    """
    if dtype == "auto":
        gpu = torch.device(device).type != "cpu"
        low = gpu and (frozen or not training)
        return (torch.bfloat16 if low else torch.float32), gpu and training
    kind = vars(torch).get(dtype)
    if not isinstance(kind, torch.dtype):
        raise ConfigError(
            f"policy.dtype {dtype!r} is not a torch dtype; use auto, float32, bfloat16 or float16."
        )
    return kind, False


def resolve_device(device: str) -> str:
    """ "auto" is the first GPU when there is one, else the CPU. Raises ConfigError for an absent device."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"policy.device is {device!r} but torch sees no GPU; use 'auto' or 'cpu'.")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"policy.device is {device!r}; use auto, cpu, cuda or cuda:1.") from error
    return device
