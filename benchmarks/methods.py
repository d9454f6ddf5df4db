"""Compare methods on one environment: the same warm starts, environment-step budget, panels and swept knobs.

    python benchmarks/methods.py sweep --out runs/study      # choose settings on the validation panel
    python benchmarks/methods.py final --out runs/study      # several seeds, the test panel, a table
    python benchmarks/methods.py table --out runs/study      # print the tables again
    python benchmarks/methods.py figure --out runs/study     # learning curves (SVG and PNG)

Every run is an ordinary `repro-rl` command, printed before it starts, and continued when this script is
repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

METHODS = ("grpo", "gigpo", "meta", "l1", "l2", "repro", "oracle", "linear")
# Swept jointly, then advantage_on at the best, then the recipe's own point. GRPO has no step part, so its
# discount changes nothing; methods that do not ask for progress have no progress tokens to credit apart.
KNOBS: dict[str, tuple[Any, ...]] = {"method.gamma": (0.5, 0.95), "train.lr": (1e-3, 2e-3)}
SECOND: dict[str, tuple[Any, ...]] = {"method.advantage_on": ("split", "all")}
UNUSED = {
    "grpo": {"method.gamma", "method.advantage_on"},
    "gigpo": {"method.advantage_on"},
    "repro-act": {"method.advantage_on"},
    "oracle-act": {"method.advantage_on"},
    "linear-act": {"method.advantage_on"},
}


def run(*arguments: str) -> None:
    """One command, quietly; its output is kept beside nothing but shown when it fails."""
    command = ["repro-rl", *arguments]
    print("$", " ".join(command), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", "from repro_rl.cli import main; main()"]
    done = subprocess.run(
        [*program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", flush=True)
        raise SystemExit(f"failed: {' '.join(command)}")


def warm_start(out: Path, seed: int, settings: list[str]) -> Path:
    """Demonstrations and warmup of one seed; shared by all its methods."""
    folder = out / "warm" / f"seed{seed}"
    if not (folder / "warmup" / "model" / "config.json").exists():
        run("demos", "-o", f"{folder}/demos", f"seed={seed}", *settings)
        run("warmup", "--demos", f"{folder}/demos", "-o", f"{folder}/warmup", f"seed={seed}", *settings)
    return folder / "warmup" / "model"


def train(out: Path, method: str, seed: int, knobs: dict[str, Any], settings: list[str]) -> Path:
    """One training run; a finished one is left alone."""
    label = "-".join(f"{name.split('.')[-1]}-{value}" for name, value in knobs.items()) or "default"
    folder = out / method / label / f"seed{seed}"
    init = warm_start(out.parent, seed, shared(settings))
    overrides = [f"{name}={value}" for name, value in knobs.items()]
    run(
        "train",
        "--method",
        method,
        "--init",
        str(init),
        "-o",
        str(folder),
        f"seed={seed}",
        *overrides,
        *settings,
    )
    return folder


def validation_curve(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["eval/success"] for row in rows if "eval/success" in row]


def combinations(method: str, knobs: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Every combination of the knobs that the method has."""
    names = [name for name in knobs if name not in UNUSED.get(method, set())]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(knobs[n] for n in names))]


def sweep(arguments: argparse.Namespace) -> None:
    """The same knobs for every method; the best mean of the last three validations is chosen."""
    path = arguments.out / "sweep.json"
    for seed in arguments.seeds:
        warm_start(arguments.out, seed, shared(arguments.settings))
    scores: dict[str, dict[str, float]] = {}
    chosen: dict[str, dict[str, Any]] = {}
    first = {name: values[:1] for name, values in SECOND.items()}
    default = {name: values[:1] for name, values in KNOBS.items()} | {n: v[-1:] for n, v in SECOND.items()}
    for stage in ({**KNOBS, **first}, SECOND, default):
        jobs = [
            (method, {**(chosen.get(method, {}) if stage is SECOND else {}), **knobs}, seed)
            for method in arguments.methods
            for knobs in combinations(method, stage)
            for seed in arguments.seeds
        ]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            folders = list(
                pool.map(
                    lambda job: train(arguments.out / "sweep", job[0], job[2], job[1], arguments.settings),
                    jobs,
                )
            )
        found: dict[str, dict[str, list[float]]] = {}
        for (method, knobs, _), folder in zip(jobs, folders, strict=True):
            curve = validation_curve(folder)[-3:]
            found.setdefault(method, {}).setdefault(json.dumps(knobs), []).append(sum(curve) / len(curve))
        for method, by_knobs in found.items():
            means = {knobs: sum(values) / len(values) for knobs, values in by_knobs.items()}
            scores.setdefault(method, {}).update(means)
            chosen[method] = json.loads(max(scores[method], key=lambda knobs: scores[method][knobs]))
    old = json.loads(path.read_text()) if path.exists() else {"scores": {}, "chosen": {}}
    old["scores"].update(scores)
    old["chosen"].update(chosen)
    path.write_text(json.dumps(old, indent=2))
    print(json.dumps(old, indent=2))


def shared(settings: list[str]) -> list[str]:
    """The settings that concern the warm start."""
    return [s for s in settings if not s.startswith(("train.", "method."))]


def final(arguments: argparse.Namespace) -> None:
    """The chosen settings of every method, over all seeds, evaluated on the test panel."""
    chosen = json.loads((arguments.out / "sweep.json").read_text())["chosen"]
    for seed in arguments.seeds:
        model = warm_start(arguments.out, seed, shared(arguments.settings))
        for method in ("gigpo", "meta"):  # the warm start under both prompts
            name = f"warm-{method}"
            if not (model.parent / "eval" / f"{name}.json").exists():
                rest = [f"method.name={method}", f"seed={seed}", *arguments.settings]
                run("eval", str(model), "--name", name, "-o", str(model.parent), *rest)

    def one(job: tuple[int, str]) -> None:
        seed, method = job
        knobs = chosen[method]
        folder = train(arguments.out / "final", method, seed, knobs, arguments.settings)
        for checkpoint in ("last",):
            if not (folder / "eval" / f"{checkpoint}.json").exists():
                run("eval", str(folder), "--checkpoint", checkpoint)

    jobs = [(seed, method) for seed in arguments.seeds for method in arguments.methods]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(one, jobs))
    table(arguments)


def collect(out: Path) -> list[dict[str, Any]]:
    """Every evaluation of the final runs and of the warm starts."""
    results = []
    for path in sorted(
        [*out.glob("final/*/*/seed*/eval/*.json"), *out.glob("warm/seed*/warmup/eval/*.json")]
    ):
        result = json.loads(path.read_text())
        result["group"] = path.parts[-5] if "final" in path.parts else path.stem
        result["seed_of_run"] = int(next(part for part in path.parts if part.startswith("seed"))[4:])
        results.append(result)
    return results


def table(arguments: argparse.Namespace) -> None:
    """Mean over seeds with a 95 % t-interval, best seed, and progress quality, as Markdown."""
    from repro_rl.study.stats import mean_interval

    results = collect(arguments.out)
    panels = {result["panel"] for result in results}
    print(f"panel {', '.join(sorted(panels))}; temperature {results[0]['temperature']}\n")
    print("| method | checkpoint | seeds | success, mean [95 % over seeds] | best | each seed |")
    print("|---|---|---|---|---|---|")
    groups = sorted({(r["group"], r["name"]) for r in results})
    for group, name in groups:
        values = {r["seed_of_run"]: r["success"] for r in results if (r["group"], r["name"]) == (group, name)}
        mean, low, high, _ = mean_interval(list(values.values()))
        each = " ".join(f"{values[seed]:.3f}" for seed in sorted(values))
        print(
            f"| {group} | {name} | {len(values)} | {mean:.3f} [{low:.3f}, {high:.3f}] "
            f"| {max(values.values()):.3f} | {each} |"
        )
    for which in ("online", "retrospective"):
        keys = (
            "covered",
            "discrimination",
            "truth_discrimination",
            "monotonicity",
            "mae",
            "spearman_success",
            "spearman_failure",
            "gain_spearman_success",
            "gain_spearman_failure",
            "final_success",
            "final_failure",
        )
        print(f"\n{which} progress, mean over seeds\n")
        print("| method | checkpoint | " + " | ".join(keys) + " |")
        print("|---" * (len(keys) + 2) + "|")
        for group, name in groups:
            cells = []
            for key in keys:
                found = [
                    r["progress"][which].get(key)
                    for r in results
                    if (r["group"], r["name"]) == (group, name) and r["progress"][which].get(key) is not None
                ]
                cells.append(f"{sum(found) / len(found):.2f}" if found else "–")
            print(f"| {group} | {name} | " + " | ".join(cells) + " |")


def figure(arguments: argparse.Namespace) -> None:
    """Validation success against environment steps: mean and range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    families = {
        "act only": ("grpo", "gigpo"),
        "online progress": ("gigpo", "meta", "l1", "l2"),
        "judged progress": ("gigpo", "repro", "oracle", "linear"),
    }
    colours = dict(
        zip(
            METHODS,
            ("#777777", "#000000", "#56B4E9", "#0072B2", "#CC79A7", "#D55E00", "#009E73", "#E69F00"),
            strict=True,
        )
    )
    plot, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, (title, methods) in zip(axes, families.items(), strict=True):
        for method in methods:
            curves = []
            for path in sorted(arguments.out.glob(f"final/{method}/*/seed*/metrics.jsonl")):
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                points = [(row["env_steps"], row["eval/success"]) for row in rows if "eval/success" in row]
                curves.append(np.array(points).T)
            if not curves:
                continue
            grid = np.linspace(max(c[0][0] for c in curves), min(c[0][-1] for c in curves), 60)
            values = np.array([np.interp(grid, *curve) for curve in curves])
            axis.plot(grid / 1000, values.mean(0), color=colours[method], label=method, linewidth=1.8)
            axis.fill_between(
                grid / 1000, values.min(0), values.max(0), color=colours[method], alpha=0.12, linewidth=0
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("environment steps (thousands)")
        axis.legend(frameon=False, fontsize=9, loc="upper left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    axes[0].set_ylabel("success on the validation panel")
    axes[0].set_ylim(bottom=0)
    path = arguments.out / "curves.svg"
    plot.savefig(path, metadata={"Date": None})
    plot.savefig(path.with_suffix(".png"), dpi=110)
    print(f"figure: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("sweep", "final", "table", "figure"))
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--settings", nargs="*", default=[], help="SECTION.KEY=VALUE for every run")
    arguments = parser.parse_args()
    if arguments.seeds is None:
        arguments.seeds = [100] if arguments.stage == "sweep" else [0, 1, 2, 3, 4]
    {"sweep": sweep, "final": final, "table": table, "figure": figure}[arguments.stage](arguments)


if __name__ == "__main__":
    main()
