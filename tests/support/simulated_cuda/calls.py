"""The calls of ``torch.cuda`` over the simulated device: memory, streams, events and graphs."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch

COUNT, INDEX = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
MEMORY = 4 * 2**30  # bytes that the device claims to have
PROPERTIES = SimpleNamespace(
    name="Simulated", total_memory=MEMORY, major=9, minor=0, multi_processor_count=1, uuid="simulated"
)


_resize = torch.UntypedStorage.resize_
_deepcopy: Callable[[torch.Tensor, dict[int, Any]], torch.Tensor] = torch.Tensor.__deepcopy__

WITHOUT_EFFECT = (
    *("_lazy_init", "init", "set_device", "synchronize", "empty_cache"),
    *("manual_seed", "manual_seed_all", "reset_peak_memory_stats"),
)
MEMORY_CALLS = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")


class Stream:
    """Everything runs at once and in order, so a stream has nothing to wait for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cuda", INDEX)

    def wait_stream(self, _: Any) -> None: ...
    def wait_event(self, _: Any) -> None: ...
    def record_event(self, _: Any = None) -> Event:
        return Event()

    def synchronize(self) -> None: ...


class Event:
    """An event that has always come."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def record(self, _: Any = None) -> None: ...
    def wait(self, _: Any = None) -> None: ...
    def synchronize(self) -> None: ...
    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 0.0


def replace_calls(device: ctypes.CDLL) -> None:
    """Put the simulated device behind ``torch.cuda``, for the rest of the process."""
    for name in ("end_capture", "kernels", "allocated"):
        getattr(device, f"simulated_cuda_{name}").restype = ctypes.c_int64
    for name in ("kernels", "replay", "drop", "limit"):
        getattr(device, f"simulated_cuda_{name}").argtypes = [ctypes.c_int64]
    device.simulated_cuda_start()
    current = Stream()

    class Graph:
        """See torch.cuda.CUDAGraph."""

        number = 0

        def replay(self) -> None:
            if device.simulated_cuda_replay(self.number):
                raise RuntimeError("a kernel of the graph failed")

        def __del__(self) -> None:
            device.simulated_cuda_drop(self.number)

    @contextmanager
    def graph(into: Graph, **_: Any) -> Iterator[None]:
        device.simulated_cuda_begin_capture()
        try:
            yield
        finally:
            into.number = device.simulated_cuda_end_capture()
        if not device.simulated_cuda_kernels(into.number):
            warnings.warn("The CUDA Graph is empty.", stacklevel=3)

    def free(*_: Any) -> tuple[int, int]:
        return MEMORY - device.simulated_cuda_allocated(), MEMORY

    def held(*_: Any) -> int:
        return int(device.simulated_cuda_allocated())

    def nothing(*_: Any, **__: Any) -> None: ...

    calls: dict[str, Any] = {
        "current_device": lambda: INDEX,
        "current_stream": lambda *_: current,
        "device_count": lambda: COUNT,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: PROPERTIES.name,
        "get_device_properties": lambda *_: PROPERTIES,
        "graph": graph,
        "graph_pool_handle": lambda: (0, 1),
        "mem_get_info": free,
        "CUDAGraph": Graph,
        "Event": Event,
        "Stream": Stream,
    }
    calls |= dict.fromkeys(WITHOUT_EFFECT, nothing)
    calls |= dict.fromkeys(("is_available", "is_initialized", "is_bf16_supported"), lambda *_, **__: True)
    calls |= dict.fromkeys(MEMORY_CALLS, held)
    calls |= dict.fromkeys(("device", "stream"), lambda *_: nullcontext())
    device.simulated_cuda_resize.argtypes = [ctypes.c_int64, ctypes.c_int64]

    def resize(storage: torch.UntypedStorage, size: int) -> torch.UntypedStorage:
        if storage.device.type != "cuda":
            return _resize(storage, size)
        device.simulated_cuda_resize(storage._cdata, size)
        return storage

    torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]
    if COUNT > 1:
        _replace_nccl()
    torch.Tensor.__deepcopy__ = _copied  # type: ignore[method-assign]
    torch.cuda.simulated_limit = device.simulated_cuda_limit  # type: ignore[attr-defined]
    for name, call in calls.items():
        setattr(torch.cuda, name, call if isinstance(call, type) else _own(call))


def _replace_nccl() -> None:
    """Ranks that ask for NCCL get gloo, over the host's memory; to their code it is NCCL."""
    from torch.distributed import distributed_c10d as c10d

    begin, name_of = c10d.init_process_group, c10d.get_backend

    def init_process_group(backend: str | None = None, *arguments: Any, **settings: Any) -> None:
        settings.pop("device_id", None)
        begin("gloo", *arguments, **settings)

    def get_backend(group: Any = None) -> str:
        return "nccl" if group is None else name_of(group)

    for module in (c10d, torch.distributed):
        module.init_process_group = init_process_group
        module.get_backend = get_backend
        module.is_nccl_available = lambda: True


def _copied(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """As torch.Tensor.__deepcopy__, which would ask for a storage of the device."""
    if tensor.device.type != "cuda":
        return _deepcopy(tensor, memo)
    copy = tensor.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        copy = torch.nn.Parameter(copy, tensor.requires_grad)
    memo[id(tensor)] = copy
    return copy


def _own(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` as a function of its own: torch's tables know its functions by identity."""

    def function(*arguments: Any, **settings: Any) -> Any:
        return call(*arguments, **settings)

    return function
