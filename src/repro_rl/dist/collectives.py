"""What ranks send each other through ``torch.distributed``: objects and sums of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

BUCKET_BYTES = 64 << 20  # gradients are summed in pieces of about this size


def gather_objects(value: Any, world: int, group: Any) -> list[Any]:
    """``value`` of every rank, in their order."""
    values: list[Any] = [None] * world
    dist.all_gather_object(values, value, group=group)
    return values


def broadcast_object(value: Any, group: Any) -> Any:
    """The first rank's ``value``."""
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def sum_buckets(
    parameters: Iterable[torch.nn.Parameter], watch: Callable[[], AbstractContextManager[None]]
) -> None:
    """Replace every gradient by its sum over ranks; a rank without one adds zero.

    ``watch``: the context of a collective call.
    """
    bucket: list[torch.Tensor] = []
    size = 0
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        grad = parameter.grad
        if bucket and (size > BUCKET_BYTES or grad.dtype != bucket[0].dtype):
            _sum(bucket, watch)
            bucket, size = [], 0
        bucket.append(grad)
        size += grad.numel() * grad.element_size()
    if bucket:
        _sum(bucket, watch)


def _sum(tensors: list[torch.Tensor], watch: Callable[[], AbstractContextManager[None]]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with watch():
        dist.all_reduce(flat)
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def absolute_sums(parameters: Iterable[torch.nn.Parameter]) -> NDArray[np.float64]:
    """The sum of absolute weights of every trained parameter."""
    total = torch.stack([p.double().abs().sum() for p in parameters if p.requires_grad])
    sums: NDArray[np.float64] = total.cpu().numpy()
    return sums


def object_group(timeout: timedelta) -> Any:
    """The process group that sends objects: the default one (None) where it works on the CPU."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=timeout)


def on_cpu(device: str) -> bool:
    """Whether ``device`` (``policy.device``) means the CPU on this machine."""
    return device == "cpu" or (device == "auto" and not torch.cuda.is_available())
