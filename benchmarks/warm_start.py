"""A model that plays a little, for benchmarks of rollouts: the user's ``--init``, or one made on the spot."""

from __future__ import annotations

from pathlib import Path

from repro_rl.config import load_config
from repro_rl.run.demonstrations import make_demos
from repro_rl.train import run_warmup

QUICK = [
    "demos={expert: 20, winning: 20, failing: 20}",
    "warmup={updates: 40, forward_from: 20, target_success: null}",
]


def warm_start(recipe: str, folder: Path, quick: bool, init: Path | None = None) -> str:
    """The model's folder. Without ``init`` the recipe's own stage 1, minutes; ``quick``: seconds of it."""
    if init is not None:
        return str(init)
    print(f"making a warm start for {recipe} (--init takes one that is there)", flush=True)
    config = load_config(recipe, QUICK if quick else [])
    make_demos(config, folder / "demos")
    return str(run_warmup(config, folder / "demos", folder / "warm"))
