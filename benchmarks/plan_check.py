"""Plans beside measurements: ``python benchmarks/plan_check.py [--ranks qwen.tiktoken] [CASE]...``.

Every case is planned in one process (``repro-rl plan --probe``'s code) and then run in another, for two
training iterations or three. Printed are the shorter of the later ones (processor seconds, since others may
use the machine) and the process's peak memory. One core, no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from repro_rl.config import load_config

BIG = [
    *(
        "env.settings={style: grid, solution: [1, 2], max_steps: 2, train_rooms: 64, validation_rooms: 8, "
        "test_rooms: 8}",
        "train.groups=1",
        "train.group_size=2",
    ),
    *("train.minibatches=1", "train.micro_tokens=1024", "train.validate_every=0", "policy.threads=1"),
    *(
        "prompt.action_tokens=16",
        "prompt.reflect_new_tokens=16",
        "prompt.think=off",
        "eval.validation_tasks=1",
    ),
]
# glibc's heap keeps the holes between freed tensors: up to as much again as large models need.
NO_HOLES = {"MALLOC_MMAP_THRESHOLD_": "262144"}
UNTRAINED = ["method.rehearsal=0"]  # an untrained model has no demonstrations
CASES: dict[str, tuple[str, list[str]]] = {
    **{f"{name}-tiny": (f"{name}-tiny", UNTRAINED) for name in ("sokoban", "webshop", "alfworld")},
    "0.5B-lora": ("paper/sokoban-4b", [*BIG, "policy.lora.rank=8", "train.gradient_checkpointing=false"]),
    "0.5B-bf16": ("paper/sokoban-4b", [*BIG, "policy.dtype=bfloat16", "train.gradient_checkpointing=true"]),
}


def settings_of(case: str, init: str) -> Any:
    recipe, overrides = CASES[case]
    return load_config(recipe, [*overrides, f"train.init={init}"])


def plan_child(case: str, init: str) -> dict[str, float]:
    from repro_rl.plan.planner import PlanOptions, make_plan
    from repro_rl.plan.workload import KnownLengths

    config = settings_of(case, init)
    lengths = KnownLengths()
    if case.startswith("0.5B"):  # random weights never end an answer
        lengths = KnownLengths(config.prompt.action_tokens, config.prompt.reflect_new_tokens)
    begin = time.perf_counter()
    plan = make_plan(config, [], PlanOptions(probe=True, lengths=lengths))
    estimate = plan.estimates[-1]
    return {
        "seconds": estimate.iteration,
        "memory": estimate.peak,
        "took": time.perf_counter() - begin,
        "prompt tokens": plan.run.work.prompt_tokens,
    }


def run_child(case: str, init: str) -> dict[str, float]:
    from repro_rl.plan.resources import clock, memory_peak
    from repro_rl.run.setup import set_up
    from repro_rl.train import RLRun

    with tempfile.TemporaryDirectory() as folder:
        run = RLRun(set_up(settings_of(case, init)), Path(folder) / "run")
        run.step()
        times = []
        for _ in range(1 if case.startswith("0.5B") else 2):
            begin = clock()
            row = run.step()
            times.append(clock() - begin)
        seconds = min(times)
    return {"seconds": seconds, "memory": memory_peak(), "rollout": row["time/rollout"]}


def model_for(case: str, folder: Path, ranks: Path | None) -> Path:
    """An untrained model: the tiny one of the recipe, or Qwen2.5-0.5B's shape with random weights."""
    if case.startswith("0.5B"):
        from repro_rl.policy.loading.qwen_shapes import build_untrained

        assert ranks is not None, f"{case} needs --ranks"
        return build_untrained(folder, "Qwen/Qwen2.5-0.5B", ranks)
    from repro_rl.run.setup import set_up

    return Path(set_up(load_config(CASES[case][0])).initial_model((), folder))


def child(kind: str, case: str, init: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, "--init", str(init), case],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(NO_HOLES if case.startswith("0.5B") else {})},
    )
    if done.returncode:
        raise SystemExit(f"{kind} {case} ended with {done.returncode}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--ranks", type=Path, help="Qwen's BPE ranks, for the 0.5B cases")
    parser.add_argument("--init", type=Path, help="model to run one tiny case with  [default: untrained]")
    parser.add_argument("--child", choices=("plan", "run"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        work = plan_child if arguments.child == "plan" else run_child
        print(json.dumps(work(arguments.cases[0], str(arguments.init))))
        return
    cases = arguments.cases or [case for case in CASES if arguments.ranks or "B" not in case]
    names = ("seconds", "planned", "ratio", "peak MB", "planned", "ratio", "probe")
    widths = (10, 9, 7, 10, 9, 7, 8)
    print(f"{'case':<16}" + "".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)))
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            init = arguments.init or model_for(case, Path(folder) / "model", arguments.ranks)
            planned = child("plan", case, init)
            measured = child("run", case, init)
        print(
            f"{case:<16}{measured['seconds']:>10.1f}{planned['seconds']:>9.1f}"
            f"{planned['seconds'] / measured['seconds']:>7.2f}{measured['memory'] / 1e6:>10,.0f}"
            f"{planned['memory'] / 1e6:>9,.0f}{planned['memory'] / measured['memory']:>7.2f}"
            f"{planned['took']:>6.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
