"""``python -m support.simulated_cuda.runs DEVICE FOLDER``: metrics of several short trainings, as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import closing
from pathlib import Path

from repro_rl.config import load_config
from repro_rl.demos import collect_demos, save_demos
from repro_rl.run.setup import Setup, set_up
from repro_rl.train import RLRun, WarmupRun

SETTINGS = [
    "env.settings={style: relative, train_rooms: 8, validation_rooms: 4, test_rooms: 4, solution: [2, 4], "
    "max_steps: 4}",
    "policy={model: tiny, dtype: float32, tiny: {hidden: 16, heads: 2, kv_heads: 1, ffn: 32}}",
    "prompt={style: compact, resolution: 50, action_tokens: 3, reflect_new_tokens: 26}",
    "demos={expert: 8, winning: 4, failing: 4}",
    "warmup={updates: 3, forward_from: 0, forward_batch: 4, reflect_batch: 4, lr: 0.01}",
    "warmup.target_success=null",
    "method=repro",
    "method.judge_pool=none",
    "train={iterations: 2, groups: 2, group_size: 2, minibatches: 2, epochs: 2, lr: 0.001}",
    "train.validate_every=0",
    "eval={validation_tasks: 4, tasks: 4}",
    "alarms={}",
]
VARIANTS = {
    "window": [],
    "chat": ["prompt.context=chat"],
    "a growing cache": ["policy.static_cache=off", "prompt.context=chat"],
    "an adapter": ["policy.lora.rank=4", "prompt.context=chat"],
    "guided reflections": ["prompt.reflect_form=guided", "prompt.context=chat"],
    "activations computed again": ["train.gradient_checkpointing=true", "prompt.context=chat"],
    "a reference model": ["train.kl.coef=0.1"],
    "bfloat16": ["policy.dtype=bfloat16"],
    "the defaults of a GPU": ["policy.dtype=auto", "prompt.context=chat"],
    "self-distillation": ["method=self-distill"],
}


def collect(setup: Setup, folder: Path) -> None:
    """Write the demonstrations of the settings into ``folder``."""
    config = setup.config
    panel = setup.panel(config.demos.split)
    save_demos(folder, *collect_demos(setup.pool.first, panel.ids, config.demos, seed=config.seed))


def main(device: str, folder: Path) -> None:
    """Print the metrics of the last updates of every variant: of a short warmup, and of RL from it."""
    found = {}
    for name, settings in VARIANTS.items():
        out = folder / name
        own = [*SETTINGS, f"policy.device={device}", *settings]
        config, row = load_config("sokoban-tiny", own), {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with closing(set_up(config)) as setup:
                if not (folder / "demos").exists():
                    collect(setup, folder / "demos")
                warmup = WarmupRun(setup, folder / "demos", out / "warm")
                warmup.train(row.update)
                model = warmup.write_model()
            begun = load_config("sokoban-tiny", [*own, f"train.init={model}"])
            with closing(set_up(begun)) as setup:
                run = RLRun(setup, out / "train")
                row |= run.step() | run.step()
        found[name] = {"metrics": row, "warnings": [str(warning.message) for warning in caught]}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
