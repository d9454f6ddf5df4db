"""The tables of docs/results.md from a study: ``python docs/data/tables.py FILE.json [METRIC]``.

FILE is a study folder's comparison.json or its copy beside this script.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from repro_rl.study.stats import mean_interval

COLUMNS = {
    "covered": "{:.2f}",
    "discrimination": "{:.1f}",
    "monotonicity": "{:.2f}",
    "mae": "{:.1f}",
    "spearman_success": "{:.2f}",
    "spearman_failure": "{:.2f}",
    "gain_spearman_success": "{:.2f}",
    "gain_spearman_failure": "{:.2f}",
}
FIRST = "repro"


def short(value: float, digits: int = 3, signed: bool = False) -> str:
    text = f"{value:{'+' if signed else ''}.{digits}f}".replace("0.", ".", 1)
    return text.replace("-", "−")


def interval(values: list[float], signed: bool = False) -> str:
    known = mean_interval(values)
    if len(values) < 2:
        return short(known.mean, 3, signed)
    return f"{short(known.mean, 3, signed)} [{short(known.low, 3, signed)}, {short(known.high, 3, signed)}]"


def main_table(arms: list[dict[str, Any]], metric: str) -> list[str]:
    """Every arm by seed, mean with its t-interval, best, and the reference minus it, paired by seed."""
    reference = next(arm for arm in arms if arm["name"] == FIRST)[metric]["by_seed"]
    seeds = sorted(reference, key=int)
    lines = [
        f"| {metric} | seed " + " | ".join(seeds) + f" | mean [95 %] | best | `{FIRST}` minus it [95 %] |",
        "|---" * (len(seeds) + 4) + "|",
    ]
    for arm in arms:
        known = arm[metric]["by_seed"]
        both = [seed for seed in seeds if seed in known]
        values = [known[seed] for seed in both]
        minus = "" if arm["name"] == FIRST else interval([reference[s] - known[s] for s in both], signed=True)
        cells = [short(known[seed]) if seed in known else "–" for seed in seeds]
        lines.append(
            f"| `{arm['name']}` | {' | '.join(cells)} | {interval(values)} | {short(max(values))} | {minus} |"
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
                "–" if known.get(key) is None else pattern.format(known[key]).lstrip("0") or "0"
                for key, pattern in COLUMNS.items()
            ]
            if known.get("truth_discrimination") is not None:
                cells[1] += f" ({known['truth_discrimination']:.1f})"
            lines.append(f"| {kind}, {arm['name']} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    data = json.loads(Path(sys.argv[1]).read_text())
    metrics = sys.argv[2:] or data["evaluations"][0]["metrics"]
    for evaluation in data["evaluations"]:
        print(f"{evaluation['panel']}, temperature {evaluation['temperature']}, revision {data['git']}")
        for metric in metrics:
            print("\n" + "\n".join(main_table(evaluation["arms"], metric)))
        print("\n" + "\n".join(quality_table(evaluation["arms"])))


if __name__ == "__main__":
    main()
