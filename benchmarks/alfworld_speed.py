"""Speed and memory of the ALFWorld environment: ``python benchmarks/alfworld_speed.py`` (one core, no GPU).

Official games: ``--data FOLDER``. Where the original packages are installed, both engines then play the same
commands in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import repro_rl


def memory() -> float:
    """Resident memory of this process, MB (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def rollouts(env: Any, tasks: list[str], seconds: float) -> tuple[float, float]:
    """Random play: (steps a second without resets, median milliseconds of load and reset)."""
    rng = random.Random(0)
    steps, spent, resets = 0, 0.0, []
    while spent < seconds:
        begin = time.perf_counter()
        _, info = env.reset(options={"task": rng.choice(tasks)})
        resets.append(time.perf_counter() - begin)
        ended = False
        begin = time.perf_counter()
        while not ended:
            _, _, terminated, truncated, info = env.step(rng.choice(info["admissible"]))
            steps += 1
            ended = terminated or truncated
        spent += time.perf_counter() - begin
    return steps / spent, statistics.median(resets) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder with official games; generated households without it")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time of the native engine")
    parser.add_argument("--games", type=int, default=6, help="games against the original engine")
    arguments = parser.parse_args()
    settings = {"data": arguments.data} if arguments.data else {}
    env = repro_rl.make("alfworld", **settings)
    panel = env.panel("train")
    print(panel.label())
    rate, reset = rollouts(env, list(panel.ids), arguments.seconds)
    print(f"native: {rate:.0f} steps/s, progress and plan included; load and reset {reset:.1f} ms (median)")
    before = memory()
    many = [repro_rl.make("alfworld", **settings) for _ in range(256)]
    for number, one in enumerate(many):
        one.reset(options={"task": panel.ids[number % len(panel)]})
    print(f"256 games in one process: {memory():.0f} MB in all, {memory() - before:.0f} MB more than one")
    if not arguments.data or importlib.util.find_spec("textworld") is None:
        return
    rng = random.Random(1)
    tasks = rng.sample(panel.ids, arguments.games)
    real = repro_rl.make("alfworld", engine="textworld", max_steps=20, **settings)
    ours = repro_rl.make("alfworld", max_steps=20, **settings)
    seconds = {"native": 0.0, "textworld": 0.0}
    loads = {"native": 0.0, "textworld": 0.0}
    steps = 0
    for task in tasks:
        for name, one in (("textworld", real), ("native", ours)):
            begin = time.perf_counter()
            _, info = one.reset(options={"task": task})
            loads[name] += time.perf_counter() - begin
        ended = False
        while not ended:
            command = rng.choice(info["admissible"])
            results = {}
            for name, one in (("textworld", real), ("native", ours)):
                begin = time.perf_counter()
                results[name] = one.step(command)
                seconds[name] += time.perf_counter() - begin
            assert results["native"][0] == results["textworld"][0], "the engines disagree"
            _, _, terminated, truncated, info = results["native"]
            steps += 1
            ended = terminated or truncated
    rates = {name: steps / spent for name, spent in seconds.items()}
    print(
        f"same {steps} commands: native {rates['native']:.0f} steps/s, original {rates['textworld']:.1f}, "
        f"{rates['native'] / rates['textworld']:.0f} times; load and reset "
        f"{loads['textworld'] / loads['native']:.0f} times faster"
    )


if __name__ == "__main__":
    main()
