"""``python -m support.simulated_cuda.memory FOLDER``: memory runs out in every phase of a run, which goes on.

Prints, as JSON, the message of each phase, the warnings of the run that continues, and its iteration.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from repro_rl.config import load_config
from repro_rl.errors import DeviceMemoryError
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun, WarmupRun
from repro_rl.train.checkpointed import ending
from support.simulated_cuda.runs import SETTINGS, collect

ROOM = 500  # bytes that are left
limit: Callable[[int], None] = torch.cuda.simulated_limit  # type: ignore[attr-defined]


def message(call: Callable[[], Any]) -> str:
    """What ``call`` says of the memory that it lacks."""
    try:
        call()
    except DeviceMemoryError as error:
        return str(error)
    finally:
        limit(-1)
    return "nothing was lacking"


def tight(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call``, with little memory left from where it begins."""

    def run(*arguments: Any, **settings: Any) -> Any:
        limit(ROOM)
        return call(*arguments, **settings)

    return run


def main(folder: Path) -> None:
    """See the module."""
    found: dict[str, Any] = {}
    config = load_config("sokoban-tiny", [*SETTINGS, "policy.device=cuda"])
    with closing(set_up(config)) as setup:
        collect(setup, folder / "demos")
        found["warmup"] = message(tight(WarmupRun(setup, folder / "demos", folder / "lacking").train))
        warmup = WarmupRun(setup, folder / "demos", folder / "warm")
        warmup.train()
        model = warmup.write_model()
    own = [*SETTINGS, "policy.device=cuda", f"train.init={model}"]
    with closing(set_up(load_config("sokoban-tiny", own))) as setup:
        found["loading"] = message(tight(lambda: RLRun(setup, folder / "never")))
        run = RLRun(setup, folder / "train")
        run.step()

        def ended(step: Callable[[], Any]) -> None:
            with ending(run):
                step()

        found["sampling"] = message(lambda: ended(tight(run.step)))  # which saves the first iteration
        with patch.object(run.updater, "update", tight(run.updater.update)):
            found["update"] = message(run.step)
    less = [*own, "train.micro_tokens=64", "policy.max_cache_tokens=4096"]
    with (
        warnings.catch_warnings(record=True) as caught,
        closing(set_up(load_config("sokoban-tiny", less))) as setup,
    ):
        warnings.simplefilter("always")
        found["iteration"] = RLRun(setup, folder / "train").step()["iteration"]
    found["warnings"] = [str(warning.message) for warning in caught]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
