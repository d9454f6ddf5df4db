"""Which of several processes this one is, as its launcher (torchrun, accelerate launch) says.

Kept apart from ``train.parallel`` so that the command line may ask without importing torch.
"""

from __future__ import annotations

import os


def place() -> tuple[int, int]:
    """This process's rank, and how many processes run; (0, 1) when no launcher started several."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    if not all(os.environ.get(name) for name in names):
        return 0, 1
    world = int(os.environ["WORLD_SIZE"])
    return (int(os.environ["RANK"]), world) if world > 1 else (0, 1)
