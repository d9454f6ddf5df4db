"""Lets verl's own trainer run where there is no GPU. Slow, and nothing that a cluster needs.

Name it before the plugin in VERL_USE_EXTERNAL_MODULES, with ``tests`` on PYTHONPATH, and set
VERL_PLATFORM=repro_rl_cpu. It registers a platform without an accelerator (Ray's GPUs are then logical ones,
``ray_init.num_gpus``), verl's FSDP2 engine for it, and a generation server that samples with
``TransformersPolicy``. Three parts of verl take no registration and are patched here: the process group's
backend, pinned memory, the table of rollout adapters.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from support.verl_cpu_server import DEVICE, NAME, Server, server_name


def _device_module() -> ModuleType:
    """torch.cpu, and nothing for what only accelerators have."""
    module = ModuleType("repro_rl_cpu_device")
    module.__dict__.update({k: v for k, v in vars(torch.cpu).items() if not k.startswith("__")})
    for name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "manual_seed", "manual_seed_all"):
        setattr(module, name, lambda *args, **kwargs: None)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, lambda *args, **kwargs: 0)
    module.mem_get_info = lambda *args, **kwargs: (0, 0)  # type: ignore[attr-defined]
    module.get_device_name = lambda *args, **kwargs: DEVICE  # type: ignore[attr-defined]
    module.set_device = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    module.get_rng_state = torch.get_rng_state  # type: ignore[attr-defined]
    module.set_rng_state = torch.set_rng_state  # type: ignore[attr-defined]
    return module


@PlatformRegistry.register(platform=NAME)
class CpuPlatform(PlatformBase):
    """The CPU as verl's device."""

    device_name = DEVICE
    vendor_name = NAME
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return DEVICE

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "REPRO_RL_CPU_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _replica() -> type:
    import ray
    from verl.workers.rollout.replica import RolloutReplica

    class CpuReplica(RolloutReplica):
        """One generation server a rank."""

        async def launch_servers(self) -> None:
            name = server_name(self.replica_rank)
            server = ray.remote(Server).options(name=name, num_cpus=0, max_concurrency=10_000)
            handle = server.remote(self.model_config.path)
            self.servers = [handle]
            self._server_handle, self._server_address = handle, name

    return CpuReplica


def _patch_process_group() -> None:
    """verl names the backends of "cpu" and of its device, which torch refuses when both are the CPU."""
    original = torch.distributed.init_process_group

    def initialize(backend: str | None = None, *args: Any, **kwargs: Any) -> None:
        original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    torch.distributed.init_process_group = initialize


def _register() -> None:
    _patch_process_group()
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp import transformer_impl
    from verl.workers.rollout import base
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=DEVICE)(
        transformer_impl.FSDPEngineWithLMHead
    )
    RolloutReplicaRegistry.register(NAME, _replica)
    base._ROLLOUT_REGISTRY[NAME, "async"] = f"{__name__}.ServerAdapter"
    policy = transformer_impl.CPUOffloadPolicy
    # Memory can only be pinned for an accelerator, and the engine asks for it with a literal True.
    transformer_impl.CPUOffloadPolicy = lambda pin_memory=False: policy(pin_memory=False)


_register()

from verl.workers.rollout.base import BaseRollout  # noqa: E402


class ServerAdapter(BaseRollout):
    """Sends the trainer's weights to this rank's server."""

    async def resume(self, tags: list[str]) -> None: ...

    async def release(self) -> None: ...

    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None],
        wire_format: str = "named_tensors",
        **kwargs: Any,
    ) -> None:
        import ray

        state = {name: tensor.detach().float().cpu().numpy() for name, tensor in weights}
        server = ray.get_actor(server_name(torch.distributed.get_rank()))
        await server.load.remote(state, kwargs.get("global_steps"))
