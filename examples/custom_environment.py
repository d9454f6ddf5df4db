"""An environment of your own, checked, demonstrated, and trained in with RePro-PO.

    python examples/custom_environment.py

A counter shows a number and a target; the actions add 1, add 5 or subtract 1. The text is compact, so the
embedded tiny model can read it. A minute on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import repro_rl as rr
from repro_rl.config import DemosSection
from repro_rl.envs.checker import check_env

MOVES = {"one": 1, "five": 5, "back": -1}
SPLITS = ("train", "train", "train", "validation", "test")


@rr.register_env("counter")
class Counter(rr.TextEnv):
    """Bring the counter to its target in as few actions as you like, at most ``max_steps``."""

    name = "counter"
    instructions = "You see a number and a target. The actions one, five and back add 1, 5 and -1."

    def __init__(self, numbers: int = 24, max_steps: int = 10):
        self.numbers, self.max_steps = numbers, max_steps
        pairs = [(a, b) for a in range(numbers) for b in range(numbers) if 3 <= abs(a - b) <= 9]
        # A task's number decides its split, so that no task is in two of them.
        self.tasks = {f"counter/{SPLITS[i % len(SPLITS)]}/{i}": pair for i, pair in enumerate(pairs)}

    def panel(self, split: str) -> rr.TaskPanel:
        ids = tuple(task for task in self.tasks if task.split("/")[1] == split)
        if not ids:
            raise rr.TaskError(f"counter has no split {split!r}; it has train, validation and test.")
        return rr.TaskPanel(self.name, split, ids, tuple(str(self.tasks[task]) for task in ids))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.task = self.chosen_task(options, "train")
        if self.task not in self.tasks:
            raise rr.TaskError(f"counter has no task {self.task!r}.")
        self.now, self.target = self.tasks[self.task]
        self.distance, self.steps = self._needed(), 0
        return self._text(), self._info(valid=True)

    def step(self, action: str) -> Any:
        move = MOVES.get(action.strip())
        valid = move is not None and 0 <= self.now + move < self.numbers
        if valid:
            self.now += move or 0
        self.steps += 1
        won = self.now == self.target
        truncated = not won and self.steps >= self.max_steps
        return self._text(), 10.0 if won else 0.0, won, truncated, self._info(valid)

    def expert(self) -> str | None:
        if self.now == self.target:
            return None
        possible = [name for name, move in MOVES.items() if 0 <= self.now + move < self.numbers]
        return min(possible, key=lambda name: self._needed(self.now + MOVES[name]))

    def vocabulary(self) -> list[str]:
        return [*MOVES, "at", "to", *(f"n{number}" for number in range(self.numbers))]

    def _needed(self, number: int | None = None) -> int:
        """Actions to the target at best, from ``number`` or from the present one."""
        gap = self.target - (self.now if number is None else number)
        if gap < 0:
            return -gap
        return gap // 5 + min(gap % 5, 1 + 5 - gap % 5)

    def _text(self) -> str:
        return f"at n{self.now} to n{self.target}"

    def _info(self, valid: bool) -> dict[str, Any]:
        won = self.now == self.target
        return {
            "task_id": self.task,
            "goal": f"Bring the counter to {self.target}.",
            "admissible": [name for name, move in MOVES.items() if 0 <= self.now + move < self.numbers],
            "anchor": (self.now, self.target),
            "valid": valid,
            "won": won,
            "score": float(won),
            "progress": max(0.0, 1 - self._needed() / self.distance),  # exact, for labels and analysis
            "brief": f"n{self.now}",
        }


SETTINGS = [
    "env.name=counter",
    "env.settings={}",
    "prompt.action_tokens=3",  # progress, one word, the end
    "prompt.reflect_new_tokens=22",  # two tokens a step, and the end
    "warmup.updates=125",
    "warmup.forward_from=100",
    "warmup.target_success=0.2",
    "eval.tasks=48",
    "eval.validation_tasks=48",
    "train.groups=32",
    "train.validate_every=0",
]


def show(row: dict[str, Any]) -> None:
    print(f"iteration {row['iteration']}: success {row['rollout/success']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=20)
    iterations = parser.parse_args().iterations
    failed = [check for check in check_env(Counter(), factory=Counter) if not check.ok]
    print("checks:", failed or "all passed")
    demos = DemosSection(expert=40, winning=150, failing=150)
    env = rr.make("counter")
    experts, labelled = rr.collect_demos(env, env.panel("train").ids, demos, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rr.save_demos(folder / "demos", experts, labelled)
        warm = rr.run_warmup(rr.load_config("sokoban-tiny", SETTINGS), folder / "demos", folder / "warmup")
        config = rr.load_config(
            "sokoban-tiny", [*SETTINGS, f"train.init={warm}", f"train.iterations={iterations}"]
        )
        before = rr.evaluate(config, warm, rr.EvalRequest("warm-start"))
        run = rr.run_training(config, folder / "run", on_row=show)
        after = rr.evaluate(config, rr.find_model(run.out), rr.EvalRequest("last"))
        print(f"held-out success {before['success']:.2f} → {after['success']:.2f} on {after['panel']}")


if __name__ == "__main__":
    main()
