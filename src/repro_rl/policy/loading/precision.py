"""Which device a model lies on, and in which precision its weights and forward passes are."""

from __future__ import annotations

import time
import warnings
from functools import cache
from typing import NamedTuple

import torch

from repro_rl.errors import ConfigError
from repro_rl.policy.model.processor import this_processor

FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86 with tiles, Arm: bfloat16 products in hardware
FLOAT16_FLAGS = ("avx512_fp16", "amx_fp16", "asimdhp")  # the same for float16
MIN_WIDTH = 256  # of a model: below, half precision saves no time on a CPU
MIN_GAIN = 1.3  # how much faster bfloat16 must be where the processor's flags are not known


class Precision(NamedTuple):
    """How a model computes."""

    weights: torch.dtype
    autocast: bool  # forward passes run under bfloat16 autocast
    reason: str  # why, in a few words


def choose_precision(
    dtype: str, device: str, training: bool, frozen: bool = False, width: int | None = None
) -> Precision:
    """What ``policy.dtype`` means for a model on ``device``.

    ``training``: the weights, or with ``frozen`` ones a float32 adapter beside them, will be trained.
    ``width``: of the hidden states, None where it is not known.

    "auto": weights to train are float32, since a step of AdamW at a small learning rate is lost in the
    rounding of bfloat16 (docs/loading.md). On a GPU they run under autocast. Other weights are bfloat16 on a
    GPU, and on a CPU that multiplies bfloat16 in hardware; narrow models stay float32 there. Raises
    ConfigError for an unknown name, and for float16 weights that are trained. Warns of bfloat16 ones, and of
    a half precision that makes a CPU slower.
    """
    if dtype != "auto":
        precision = _named_precision(dtype, training and not frozen)
        if torch.device(device).type == "cpu" and width is not None and width >= MIN_WIDTH:
            _warn_of_slow(precision.weights)
        return precision
    trained = training and not frozen
    if torch.device(device).type != "cpu":
        why = "weights to train, under bfloat16 autocast" if trained else "weights that are not trained"
        return Precision(torch.float32 if trained else torch.bfloat16, training, f"{why}, on a GPU")
    if trained:
        return Precision(torch.float32, False, "weights to train, on a CPU")
    if width is None or width < MIN_WIDTH:
        return Precision(torch.float32, False, "a narrow model on a CPU")
    fast, why = fast_bfloat16()
    return Precision(torch.bfloat16 if fast else torch.float32, False, f"weights that are not trained; {why}")


def _named_precision(dtype: str, trained: bool) -> Precision:
    kind = vars(torch).get(dtype)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point or kind.itemsize < 2:
        raise ConfigError(
            f"policy.dtype {dtype!r} is not a torch dtype for weights; use auto, float32, bfloat16 or "
            "float16."
        )
    if trained and kind == torch.float16:
        raise ConfigError(
            "policy.dtype=float16 cannot train all weights: gradients and the optimizer's numbers leave its "
            "range (6e-8 to 65,504), and the loss is NaN after a step. Use auto, float32 or bfloat16, or "
            "train an adapter (policy.lora.rank=16)."
        )
    if trained and kind.itemsize < 4:
        warnings.warn(
            f"policy.dtype={dtype}: optimizer steps smaller than the rounding of {dtype} weights are lost; "
            "use auto or float32 to train all weights.",
            stacklevel=3,
        )
    return Precision(kind, False, "policy.dtype")


def _warn_of_slow(kind: torch.dtype) -> None:
    """Half precision that the CPU has to convert saves memory and costs time."""
    processor = this_processor()
    if kind == torch.bfloat16:
        fast, why = fast_bfloat16()
    elif kind == torch.float16 and processor is not None:
        fast, why = not processor.flags.isdisjoint(FLOAT16_FLAGS), "the processor has no float16 products"
    else:
        return
    if not fast:
        name = str(kind).removeprefix("torch.")
        warnings.warn(
            f"policy.dtype={name} is slower than float32 on this CPU: {why}. A product took 7 to 8 times as "
            "long on a CPU with AVX2 alone. Use auto or float32, unless memory is short.",
            stacklevel=4,
        )


@cache
def fast_bfloat16() -> tuple[bool, str]:
    """Whether this CPU computes faster in bfloat16 than in float32, and how that is known."""
    processor = this_processor()
    if processor is not None:
        found = [flag for flag in FLAGS if flag in processor.flags]
        return bool(
            found
        ), f"the processor has {found[0]}" if found else "the processor has no bfloat16 products"
    gain = _measured_gain()
    return gain >= MIN_GAIN, f"bfloat16 products measured at {gain:.1f} times the speed of float32"


def _measured_gain(size: int = 512) -> float:
    """Speed of bfloat16 matrix products over that of float32, in a few hundredths of a second."""
    seconds = []
    for kind in (torch.float32, torch.bfloat16):
        # No random numbers: the caller's generator must stay as it is.
        matrix = torch.linspace(-1, 1, size * size).view(size, size).to(kind)
        matrix @ matrix
        begin = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - begin)
    return seconds[0] / seconds[1]


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


def prepare_gpu(device: str) -> None:
    """Settings of the whole process before a model is put on a GPU; nothing is done for another device.

    A device with a number becomes the current one, where streams and CUDA graphs are created. The
    attention of cuDNN is turned off. It plans for tens of milliseconds for every new shape, and prompts and
    batches have ever new ones. Torch prefers it on an H100 (its pull request 162073).
    """
    chosen = torch.device(device)
    if chosen.type != "cuda":
        return
    if chosen.index is not None:
        torch.cuda.set_device(chosen)
    torch.backends.cuda.enable_cudnn_sdp(False)
