"""The tables of docs/results-*.md from a study: ``python docs/data/tables.py FILE.json [METRIC]``.

FILE is a study folder's comparison.json or its copy beside this script; differences are those of ``repro``
(``--first ARM``: of another reference of the study).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

COLUMNS = {
    "covered": 2,
    "discrimination": 1,
    "monotonicity": 2,
    "mae": 1,
    "spearman_success": 2,
    "spearman_failure": 2,
    "gain_spearman_success": 2,
    "gain_spearman_failure": 2,
}
FIRST = "repro"


def short(value: float, digits: int = 3, signed: bool = False) -> str:
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return re.sub(r"^([+-]?)0\.", r"\1.", text).replace("-", "−")


def interval(mean: float, bounds: list[float] | None, signed: bool = False) -> str:
    """A mean with the t-interval that the study wrote beside it; None with one seed."""
    low_high = "" if bounds is None else f" [{short(bounds[0], 3, signed)}, {short(bounds[1], 3, signed)}]"
    return short(mean, 3, signed) + low_high


def main_table(evaluation: dict[str, Any], metric: str, first: str = FIRST) -> list[str]:
    """Every arm by seed, mean with its t-interval, best, and the reference minus it, paired by seed."""
    arms = evaluation["arms"]
    if first not in {arm["name"] for arm in arms}:
        names = ", ".join(arm["name"] for arm in arms)
        raise SystemExit(f"The study has no arm {first!r}; give one of these with --first: {names}.")
    seeds = sorted(next(arm for arm in arms if arm["name"] == first)[metric]["by_seed"], key=int)
    minus = {
        row["other"]: interval(row["mean"], row["t"], signed=True)
        for row in evaluation["differences"]
        if row["metric"] == metric and row["reference"] == first
    }
    lines = [
        f"| {metric} | seed " + " | ".join(seeds) + f" | mean [95 %] | best | `{first}` minus it [95 %] |",
        "|---" * (len(seeds) + 4) + "|",
    ]
    for arm in arms:
        known = arm[metric]
        cells = [short(known["by_seed"][seed]) if seed in known["by_seed"] else "–" for seed in seeds]
        lines.append(
            f"| `{arm['name']}` | {' | '.join(cells)} | {interval(known['mean'], known['t'])} "
            f"| {short(known['best'])} | {minus.get(arm['name'], '')} |"
        )
    return lines


def quality_table(arms: list[dict[str, Any]]) -> list[str]:
    """Progress against the truth, means over the seeds."""
    lines = [
        "| | coverage | discrimination (truth) | monotone | error | Spearman won | Spearman lost | gains won "
        "| gains lost |",
        "|---" * 9 + "|",
    ]
    for kind in ("retrospective", "online"):
        for arm in arms:
            known = arm["progress"].get(kind)
            if not known or not known["covered"]:
                continue
            cells = [
                "–" if known.get(key) is None else short(known[key], digits)
                for key, digits in COLUMNS.items()
            ]
            if known.get("truth_discrimination") is not None:
                cells[1] += f" ({known['truth_discrimination']:.1f})"
            lines.append(f"| {kind}, {arm['name']} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("metrics", nargs="*")
    parser.add_argument("--first", default=FIRST)
    given = parser.parse_args()
    data = json.loads(Path(given.file).read_text())
    metrics = given.metrics or data["evaluations"][0]["metrics"]
    for evaluation in data["evaluations"]:
        print(f"{evaluation['panel']}, temperature {evaluation['temperature']}, revision {data['git']}")
        for metric in metrics:
            print("\n" + "\n".join(main_table(evaluation, metric, given.first)))
        print("\n" + "\n".join(quality_table(evaluation["arms"])))


if __name__ == "__main__":
    main()
