"""``python -m support.simulated_cuda.families FOLDER NAMES``: the check of models of families, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from repro_rl.config import load_config
from repro_rl.study.conformance import check_model
from support.architectures import FAMILIES, save, tokenizer


def main(folder: Path, names: list[str]) -> None:
    """Print of each family the largest differences in log-probs, what failed, and how it is sampled."""
    words, found, families = tokenizer(), {}, {family.name: family for family in FAMILIES}
    config = load_config("sokoban-tiny", ["policy.device=cuda", "policy.dtype=float32"])
    for name in names:
        family = families[name]
        checked = check_model(save(family, folder / family.model_type, words), config)
        assert checked.window is not None
        assert checked.chat is not None
        failed = [f"{check.name}: {check.detail}" for check in checked.checks if not check.ok]
        found[name] = {
            "largest": [checked.window.largest, checked.chat.largest],
            "failed": failed,
            "sampling": checked.facts["sampling"],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
