"""What reflection adds to a GiGPO iteration: ``python benchmarks/reflection_overhead.py``.

Runs of the recipe with its own settings take turns, one iteration each, from the same warm start:

- GiGPO
- the same with every episode judged and the recipe's share of the judgements trained on
- that with the recipe's rehearsal
- judged by the frozen warm start, with none trained on
- RePro whole, which asks for progress while acting too

One thread, no GPU; processor seconds by part.

``--paper`` takes the papers' proportions instead of a recipe for tiny models: Sokoban's full prompts with
thoughts, history 2 and 15 steps. Answers have up to ``--answer`` tokens, and reflections up to
``--reflection`` (132: what 15 lines of values take in Qwen's tokens, see prompt_tokens.py). Every reflection
is trained on, and in one more run an eighth of them, as in the recipes for tiny models. The model is
untrained, so that no episode ends early; a word is a token. With ``prompt.context=chat`` acting holds the
reflection too.
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
from context_modes import word_model
from side_by_side import ratio, versions
from warm_start import warm_start

from repro_rl.config import load_config
from repro_rl.rollout.context import ChatContext, window
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun

REFLECTING = ["method=gigpo", "method.reflect=true"]
CASES: dict[str, list[str]] = {
    "GiGPO": ["method=gigpo"],
    "+ reflection": [*REFLECTING, "method.rehearsal=0"],
    "+ rehearsal": REFLECTING,
    # A frozen judge is refused where nothing reads what it writes.
    "+ frozen judge": [*REFLECTING, "method.judge=reference", "method.shaping=retrospective"],
    "RePro": ["method=repro"],
}
PAPER_CASES: dict[str, list[str]] = {
    "GiGPO": CASES["GiGPO"],
    "+ reflection": CASES["+ reflection"],
    "+ an eighth": [*CASES["+ reflection"], "method.reflect_share=0.125"],
    "+ frozen judge": CASES["+ frozen judge"],
    "RePro": CASES["RePro"],
}
PAPER = "the papers' proportions, an untrained model"
PARTS = ("acting", "reflecting", "update")
LENGTHS = {"rollout/tokens": "answer", "reflect/tokens": "reflection", "rollout/length": "steps"}


def paper_settings(answer: int, reflection: int) -> list[str]:
    """Sokoban as the papers prompt it, in a number of episodes that a CPU plays in seconds."""
    return [
        "env={name: sokoban, settings: {style: grid, max_steps: 15, train_rooms: 40, validation_rooms: 5, "
        "test_rooms: 5}}",
        f"prompt={{style: full, think: optional, history: 2, action_tokens: {answer}, "
        f"reflect_new_tokens: {reflection}, max_prompt_tokens: 4000, max_reflect_tokens: 16000}}",
        "policy.device=cpu",
        "method={reflect_share: 1, rehearsal: 0}",
        "train={groups: 4, group_size: 8, minibatches: 2, epochs: 1, micro_tokens: 8192}",
        "eval.validation_tasks=5",
    ]


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
    parser.add_argument(
        "--paper", action="store_true", help="the papers' proportions; no recipe, no warm start"
    )
    parser.add_argument("--answer", type=int, default=128, help="with --paper: longest answer, in tokens")
    parser.add_argument(
        "--reflection", type=int, default=132, help="with --paper: longest reflection, in tokens"
    )
    parser.add_argument("--init", type=Path, help="a warm start of the recipe  [default: made here, minutes]")
    parser.add_argument("--demos", type=Path, help="its demonstrations, where it does not know them")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="seconds: small iterations, a short warm start")
    parser.add_argument("settings", nargs="*", metavar="SECTION.KEY=VALUE", help="for every run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repetitions = 2 if arguments.quick else arguments.repetitions
    clock = Clock()
    timed = {
        "run_episodes": clock.wrap("acting", window.run_episodes),
        "reflect": clock.wrap("reflecting", window.reflect),
    }
    with (
        tempfile.TemporaryDirectory() as name,
        patch.multiple(window, **timed),
        # The untrained model's tokenizer joins lines, so no reflection can be read. Only costs count here.
        patch("repro_rl.run.preflight.misread_reflection", return_value=None),
        patch.object(ChatContext, "play", clock.wrap("acting", ChatContext.play)),
    ):
        folder = Path(name)
        common = ["train.validate_every=0", "train.record_every=0"]
        if arguments.paper:
            model = word_model(folder / "model", think="optional")
            common += [*paper_settings(arguments.answer, arguments.reflection), f"policy.model={model}"]
            common.append(f"train.init={model}")
            cases = PAPER_CASES
        else:
            init = warm_start(arguments.recipe, folder, arguments.quick, arguments.init)
            common.append(f"train.init={init}")
            cases = CASES
        common += arguments.settings
        if arguments.quick:
            common += ["train.groups=4", "train.group_size=4", "train.minibatches=2"]
        if arguments.demos:
            common.append(f"train.demos={arguments.demos}")
        recipe = None if arguments.paper else arguments.recipe
        if load_config(recipe, common).prompt.context == "chat":  # a conversation is its own judge
            cases = {title: settings for title, settings in cases.items() if title != "+ frozen judge"}
        runs = {}
        for title, settings in cases.items():
            run = runs[title] = RLRun(set_up(load_config(recipe, [*common, *settings])), folder / title)
            run.updater.update = clock.wrap("update", run.updater.update)  # type: ignore[method-assign]
        seconds: dict[str, dict[str, list[float]]] = {title: defaultdict(list) for title in cases}
        lengths: dict[str, dict[str, list[float]]] = {title: defaultdict(list) for title in cases}
        for turn in range(repetitions + 1):  # the first does not count
            for title in cases if turn % 2 else reversed(cases):
                clock.spent.clear()
                begin = time.process_time()
                metrics = runs[title].step()
                whole = time.process_time() - begin
                if turn == 0:
                    continue
                rows = seconds[title]
                rows["whole"].append(whole)
                for part in PARTS:
                    rows[part].append(clock.spent[part])
                rows["other"].append(whole - sum(clock.spent[part] for part in PARTS))
                for key, word in LENGTHS.items():
                    lengths[title][word].append(metrics.get(key, 0.0))
            if turn:
                line = ", ".join(f"{title} {seconds[title]['whole'][-1]:.1f} s" for title in cases)
                print(f"turn {turn}: {line}", flush=True)
        config = runs["GiGPO"].setup.config
        print(
            f"{recipe or PAPER}, {config.train.groups} x {config.train.group_size} episodes; "
            f"{versions('torch', 'transformers')}; processor seconds an iteration, medians; mean tokens"
        )
        names = (*PARTS, "other", "whole")
        print(
            f"{'':<16}"
            + "".join(f"{part:>12}" for part in (*names, *LENGTHS.values()))
            + "  times GiGPO (range)"
        )
        for title, rows in seconds.items():
            print(
                f"{title:<16}"
                + "".join(f"{statistics.median(rows[part]):>12.2f}" for part in names)
                + "".join(f"{statistics.mean(lengths[title][word]):>12.1f}" for word in LENGTHS.values())
                + f"  {ratio(rows['whole'], seconds['GiGPO']['whole'])}"
            )


if __name__ == "__main__":
    main()
