"""Which of several ranks this process is, as its launcher (torchrun, accelerate launch) says.

A module of its own, so that the command line may ask without importing torch.
"""

from __future__ import annotations

import os

from repro_rl.errors import ConfigError


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) when no launcher started several."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    if not all(os.environ.get(name) for name in names):
        return 0, 1
    world = int(os.environ["WORLD_SIZE"])
    return (int(os.environ["RANK"]), world) if world > 1 else (0, 1)


def refuse_ranks(backend: str, world: int) -> None:
    """Raises ConfigError for several ranks with a ``policy.backend`` that serves one."""
    if world > 1:
        raise ConfigError(
            f"policy.backend={backend} is for one training process; with torchrun use "
            "policy.backend=transformers."
        )
