"""What reflection adds to a GiGPO iteration: ``python benchmarks/reflection_overhead.py``.

Runs of the recipe with its own settings take turns, one iteration each, from the same warm start: GiGPO; the
same with every episode judged and the recipe's share of the judgements trained on; that with the recipe's
rehearsal; and RePro whole, which asks for progress while acting too. One thread, no GPU; processor seconds by
part.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from side_by_side import ratio, versions
from warm_start import warm_start

from repro_rl.config import load_config
from repro_rl.train import contexts
from repro_rl.train.loop import RLRun

REFLECTING = ["method=gigpo", "method.reflect=true"]
CASES: dict[str, list[str]] = {
    "GiGPO": ["method=gigpo"],
    "+ reflection": [*REFLECTING, "method.rehearsal=0"],
    "+ rehearsal": REFLECTING,
    "RePro": ["method=repro"],
}
PARTS = ("acting", "reflecting", "update")


class Clock:
    """Processor seconds of each part of an iteration."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            begin = time.process_time()
            try:
                return function(*args, **named)
            finally:
                self.spent[part] += time.process_time() - begin

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="sokoban-tiny", help="sokoban-tiny, alfworld-tiny, webshop-tiny")
    parser.add_argument("--init", type=Path, help="a warm start of the recipe  [default: made here, minutes]")
    parser.add_argument("--demos", type=Path, help="its demonstrations, where it does not know them")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="seconds: small iterations, a short warm start")
    parser.add_argument("settings", nargs="*", metavar="SECTION.KEY=VALUE", help="for every run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repetitions = 2 if arguments.quick else arguments.repetitions
    clock = Clock()
    watched = {
        "run_episodes": clock.wrap("acting", contexts.run_episodes),
        "reflect": clock.wrap("reflecting", contexts.reflect),
    }
    with tempfile.TemporaryDirectory() as name, patch.multiple(contexts, **watched):
        folder = Path(name)
        init = warm_start(arguments.recipe, folder, arguments.quick, arguments.init)
        common = [f"train.init={init}", "train.eval_every=0", "train.record_every=0", *arguments.settings]
        if arguments.quick:
            common += ["train.groups=4", "train.group_size=4", "train.minibatches=2"]
        if arguments.demos:
            common.append(f"train.demos={arguments.demos}")
        runs = {}
        for title, settings in CASES.items():
            config = load_config(arguments.recipe, [*common, *settings])
            runs[title] = RLRun(config, folder / title)
            runs[title].updater.update = clock.wrap("update", runs[title].updater.update)  # type: ignore[method-assign]
        seconds: dict[str, dict[str, list[float]]] = {title: defaultdict(list) for title in CASES}
        for turn in range(repetitions + 1):  # the first does not count
            for title in CASES if turn % 2 else reversed(CASES):
                clock.spent.clear()
                begin = time.process_time()
                runs[title].step()
                whole = time.process_time() - begin
                if turn == 0:
                    continue
                rows = seconds[title]
                rows["whole"].append(whole)
                for part in PARTS:
                    rows[part].append(clock.spent[part])
                rows["other"].append(whole - sum(clock.spent[part] for part in PARTS))
            if turn:
                told = ", ".join(f"{title} {seconds[title]['whole'][-1]:.1f} s" for title in CASES)
                print(f"turn {turn}: {told}", flush=True)
        config = runs["GiGPO"].config
        print(
            f"{arguments.recipe}, {config.train.groups} x {config.train.group_size} episodes; "
            f"{versions('torch', 'transformers')}; processor seconds an iteration, medians"
        )
        names = (*PARTS, "other", "whole")
        print(f"{'':<14}" + "".join(f"{part:>12}" for part in names) + "  times GiGPO (range)")
        for title, rows in seconds.items():
            print(
                f"{title:<14}"
                + "".join(f"{statistics.median(rows[part]):>12.2f}" for part in names)
                + f"  {ratio(rows['whole'], seconds['GiGPO']['whole'])}"
            )


if __name__ == "__main__":
    main()
