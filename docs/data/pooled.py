"""Studies of the same arms on different seeds as one: ``python docs/data/pooled.py FILE.json FILE.json``.

Prints success by arm over all seeds, and ``repro`` (``--first ARM``) minus each arm, paired by seed: mean,
95 % t-interval, seeds on which it is ahead, exact sign-flip p, and the same corrected for the arms compared
(Holm).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tables import FIRST, interval, short

from repro_rl.study.paired import holm, sign_flip_p
from repro_rl.study.stats import mean_interval


def by_seed(files: list[str]) -> tuple[dict[str, dict[int, float]], set[str]]:
    """{arm: {seed: success}} of the arms that every file has, and the names of those that were trained.

    Raises ValueError: a seed is there twice, or the files tell of different panels.
    """
    found: list[dict[str, dict[int, float]]] = []
    trained: set[str] = set()
    panels: set[str] = set()
    for file in files:
        evaluation = json.loads(Path(file).read_text())["evaluations"][0]
        panels.add(evaluation["panel"])
        arms = evaluation["arms"]
        trained |= {a["name"] for a in arms if a["trained"]}
        found.append({a["name"]: {int(s): v for s, v in a["success"]["by_seed"].items()} for a in arms})
    if len(panels) > 1:
        raise ValueError(f"different panels: {', '.join(sorted(panels))}")
    pooled: dict[str, dict[int, float]] = {}
    for name in found[0]:
        if all(name in arms for arms in found):
            pooled[name] = {}
            for arms in found:
                if pooled[name].keys() & arms[name].keys():
                    raise ValueError(f"{name}: a seed is in two files")
                pooled[name] |= arms[name]
    return pooled, trained


def cell(values: list[float], signed: bool = False) -> str:
    found = mean_interval(values)
    return interval(found.mean, [found.low, found.high], signed)


def main(files: list[str], first: str) -> None:
    arms, trained = by_seed(files)
    seeds = sorted(arms[first])
    print(
        f"| success | mean of {len(seeds)} seeds [95 %] | `{first}` minus it [95 %] | ahead | p | p (Holm) |"
    )
    print("|---|---|---|---|---|---|")
    minus = {
        name: [arms[first][seed] - values[seed] for seed in seeds]
        for name, values in arms.items()
        if name != first and name in trained
    }
    p = {name: sign_flip_p(differences) or 1.0 for name, differences in minus.items()}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    for name, values in arms.items():
        more = [""] * 4
        if name in minus:
            ahead = f"{sum(d > 0 for d in minus[name])} of {len(seeds)}"
            more = [cell(minus[name], signed=True), ahead, short(p[name]), short(corrected[name])]
        print(f"| `{name}` | {cell([values[seed] for seed in seeds])} | {' | '.join(more)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--first", default=FIRST)
    given = parser.parse_args()
    main(given.files, given.first)
