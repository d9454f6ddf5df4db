"""Studies of the same arms on different seeds as one: ``python docs/data/pooled.py FILE.json FILE.json``.

Prints success by arm over all seeds, the best first, and ``repro`` (``--first ARM``) minus each arm, paired
by seed. Arms that lack a seed are left out; ``--missing`` lists them alone, with the seeds that they have. A
difference has its mean, 95 % t-interval and the seeds on which it leads. It also has the exact sign-flip p,
and the same corrected for the arms compared (Holm). ``--settings`` adds a column with what the sweep chose
for each arm. ``--picture FILE.svg`` draws them. ``--judges ARM,ARM`` prints instead how good the reflections
of these arms are, as means over all seeds. ``--pairs A:B,C:D`` prints instead two arms side by side, a row a
pair. ``--each`` prints instead the figure of every seed, for studies of too few seeds for an interval.
``--without ARM,ARM`` leaves arms out, of the correction as well.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tables import FIRST, interval, short

from repro_rl.report.lines import Ranked, Spread
from repro_rl.study.paired import holm, sign_flip_p
from repro_rl.study.stats import mean_interval


def by_seed(files: list[str]) -> tuple[dict[str, dict[int, float]], set[str]]:
    """{arm: {seed: success}} of the arms in any file, and the names of those that were trained.

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
    for arms in found:
        for name, values in arms.items():
            known = pooled.setdefault(name, {})
            if known.keys() & values.keys():
                raise ValueError(f"{name}: a seed is in two files")
            known |= values
    return pooled, trained


def chosen_settings(files: list[str]) -> dict[str, str]:
    """{arm: "gamma, learning rate"} as the sweep chose them; "–" for one that was not chosen.

    Raises ValueError: two files tell of different settings.
    """
    found: dict[str, str] = {}
    for file in files:
        data = json.loads(Path(file).read_text())
        for arm in data["study"]["methods"]:
            chosen = data["chosen"].get(arm["tuned_as"] or arm["name"], {})
            gamma, rate = chosen.get("method.gamma"), chosen.get("train.lr")
            rate_text = "–" if rate is None else f"{rate:.0e}".replace("e-0", "e-")
            text = f"{'–' if gamma is None else f'{gamma:g}'.lstrip('0')}, {rate_text}"
            if found.setdefault(arm["name"], text) != text:
                raise ValueError(f"{file}: {arm['name']} has {text}, and {found[arm['name']]} before")
    return found


QUALITIES = {  # columns of the table of judges, and where a comparison keeps them
    "error, points of 100": "mae",
    "ρ within failures": "spearman_failure",
    "ρ of step gains there": "gain_spearman_failure",
    "EPIC distance": "epic",
}


def judges_table(files: list[str], names: list[str]) -> str:
    """Quality of the retrospective values of arms, as means over the seeds of all files."""
    lines = [f"| | {' | '.join(QUALITIES)} |", f"|---|{'---|' * len(QUALITIES)}"]
    parts = [json.loads(Path(file).read_text())["evaluations"][0]["arms"] for file in files]
    for name in names:
        found: list[tuple[int, dict[str, float]]] = [
            (len(arm["seeds"]), arm["progress"]["retrospective"])
            for arms in parts
            for arm in arms
            if arm["name"] == name
        ]
        cells = []
        for key in QUALITIES.values():
            mean = sum(seeds * quality[key] for seeds, quality in found) / sum(seeds for seeds, _ in found)
            cells.append(f"{mean:.0f}" if key == "mae" else short(mean))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> Spread:
    found = mean_interval(values)
    return Spread(found.mean, None if len(values) < 2 else (found.low, found.high), values)


def cell(found: Spread, signed: bool = False) -> str:
    return interval(found.mean, None if found.interval is None else list(found.interval), signed)


def ranked_arms(arms: dict[str, dict[int, float]], first: str) -> list[Ranked]:
    """The arms by their mean over the seeds of ``first``, the best first."""
    seeds = sorted(arms[first])
    rows = []
    for name, values in arms.items():
        minus = None if name == first else spread([arms[first][seed] - values[seed] for seed in seeds])
        rows.append(Ranked(name, spread([values[seed] for seed in seeds]), minus))
    return sorted(rows, key=lambda row: -row.result.mean)


def table(rows: list[Ranked], first: str, trained: set[str], settings: dict[str, str] | None = None) -> str:
    """``settings``: the cells of a column of their own, see ``chosen_settings``."""
    count = len(rows[0].result.by_seed)
    head = [f"mean of {count} seeds [95 %]", f"`{first}` minus it [95 %]", "ahead", "p", "p (Holm)"]
    if settings is not None:
        head.insert(0, "γ, learning rate")
    lines = [f"| success | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    tested = {row.label: row.difference for row in rows if row.difference and row.label in trained}
    p = {
        name: value
        for name, minus in tested.items()
        if (value := sign_flip_p(list(minus.by_seed))) is not None  # none for one seed, or more than 20
    }
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    for row in rows:
        more = [""] * 4
        if row.label in tested:
            minus = tested[row.label]
            ahead = f"{sum(d > 0 for d in minus.by_seed)} of {count}"
            more = [
                cell(minus, signed=True),
                ahead,
                *(short(v[row.label]) if row.label in v else "–" for v in (p, corrected)),
            ]
        columns = [cell(row.result), *more]
        if settings is not None:
            columns.insert(0, settings[row.label] if row.label in trained else "")
        lines.append(f"| `{row.label}` | {' | '.join(columns)} |")
    return "\n".join(lines)


def pairs_table(arms: dict[str, dict[int, float]], pairs: list[tuple[str, str]], heads: list[str]) -> str:
    """Two arms a row, the second minus the first, over the seeds that both have; ``heads``: their columns."""
    lines = [f"| success | {' | '.join(heads)} | difference [95 %] | p |", "|---|---|---|---|---|"]
    for one, two in pairs:
        seeds = sorted(arms[one].keys() & arms[two].keys())
        means = [sum(arms[name][seed] for seed in seeds) / len(seeds) for name in (one, two)]
        differences = [arms[two][seed] - arms[one][seed] for seed in seeds]
        p = sign_flip_p(differences)
        columns = [*map(short, means), cell(spread(differences), signed=True), "–" if p is None else short(p)]
        lines.append(f"| `{one}`, `{two}` | {' | '.join(columns)} |")
    return "\n".join(lines)


def by_mean(arms: dict[str, dict[int, float]]) -> list[tuple[float, str]]:
    """(mean over the seeds that it has, arm), the best first."""
    means = [(sum(values.values()) / len(values), name) for name, values in arms.items()]
    return sorted(means, key=lambda item: -item[0])


def short_table(arms: dict[str, dict[int, float]]) -> str:
    """Arms by their mean over the seeds that they have, the best first."""
    lines = ["| success | seeds | mean |", "|---|---|---|"]
    for mean, name in by_mean(arms):
        seeds = ", ".join(map(str, sorted(arms[name])))
        lines.append(f"| `{name}` | {seeds} | {short(mean)} |")
    return "\n".join(lines)


def each_table(arms: dict[str, dict[int, float]]) -> str:
    """Arms by their mean, the best first, with the figure of each of the seeds that all have."""
    seeds = sorted(next(iter(arms.values())))
    lines = [
        f"| success | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |",
        f"|---|---|{'---|' * len(seeds)}",
    ]
    for mean, name in by_mean(arms):
        figures = [*(arms[name][seed] for seed in seeds), mean]
        lines.append(f"| `{name}` | {' | '.join(map(short, figures))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--first", default=FIRST)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--settings", action="store_true")
    parser.add_argument("--judges", type=lambda text: text.split(","))
    parser.add_argument("--pairs", type=lambda text: [tuple(pair.split(":")) for pair in text.split(",")])
    parser.add_argument("--heads", type=lambda text: text.split(","), default=["first", "second"])
    parser.add_argument("--without", type=lambda text: text.split(","), default=[])
    given = parser.parse_args()
    if given.judges:
        print(judges_table(given.files, given.judges))
        return
    arms, trained = by_seed(given.files)
    if given.pairs:
        print(pairs_table(arms, given.pairs, given.heads))
        return
    arms = {name: values for name, values in arms.items() if name not in given.without}
    whole = {name: values for name, values in arms.items() if values.keys() >= arms[given.first].keys()}
    if given.missing:
        print(short_table({name: values for name, values in arms.items() if name not in whole}))
        return
    if given.each:
        print(each_table(whole))
        return
    rows = ranked_arms(whole, given.first)
    print(table(rows, given.first, trained, chosen_settings(given.files) if given.settings else None))
    if given.picture:
        from repro_rl.report.canvas import ranking

        given.picture.write_bytes(ranking(rows, given.first, "success")[given.picture.suffix[1:]])


if __name__ == "__main__":
    main()
