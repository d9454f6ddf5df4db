"""The tables of the progress analysis, once: the page and the Markdown file print the same cells."""

from __future__ import annotations

from typing import Any

from repro_rl.report.comparison_tables import DASH, Table
from repro_rl.report.metrics import POINTS, QUALITY

Json = dict[str, Any]
NAMES = {
    "trained": "advantage trained with (contains the gain)",
    "composite": "step advantage, whole reward (contains the gain)",
    "outcome": "step advantage, outcome alone",
    "truth": "gain of the true progress",
}
PAIRED = {
    "mae": "Mean error, points",
    "mae_success": "… in successes",
    "mae_failure": "… in failures",
    "spearman_success": "Rank correlation in successes",
    "spearman_failure": "… in failures",
}
EXTRA = {"constant_success": "Constant series, successes", "constant_failure": "Constant series, failures"}
_TITLES = {**{key: title for key, (title, _) in QUALITY.items()}, **EXTRA, "step_covered": "Covered steps"}
# Of the truth against itself: says nothing.
_SELF = {f"{key}_{part}" for key in ("mae", "spearman", "gain_spearman") for part in ("success", "failure")}
_SELF |= {"mae", "leakage", "truth_discrimination"}


def cell(value: Json | None, digits: int = 2, *, scale: float = 1.0, sign: bool = False) -> str:
    """12.3 [10.0, 14.6]; a dash where there is no value, no brackets where there is no interval."""
    if not value or value.get("value") is None:
        return DASH

    def one(number: float) -> str:
        text = f"{scale * number:+.{digits}f}" if sign else f"{scale * number:.{digits}f}"
        return text.replace("-", "−")

    text = one(value["value"])
    if value.get("low") is not None and value.get("high") is not None:
        text += f" [{one(value['low'])}, {one(value['high'])}]"
    return text


def closer(data: Json) -> Table:
    """Is retrospective progress closer to the truth than online progress? One row a set."""
    rows = []
    for row in data["sets"]:
        mae, rho = (row["paired"].get(key) or {} for key in ("mae", "spearman_failure"))
        if mae.get("value") is None:
            continue
        cells = [f"{row['run']}, {row['name']}", f"{row['won_share']:.2f}"]
        for value, digits in ((mae, 1), (rho, 2)):
            sides = [cell({"value": value.get(which)}, digits) for which in ("online", "retrospective")]
            cells.append(" / ".join(sides))
            cells.append(f"{cell(value, digits, sign=True)} ({value.get('count', 0)})")
        rows.append(cells)
    return Table(
        "Is retrospective progress closer to the truth than online progress?",
        ["episodes of", "won", "error", "difference", "rank correlation in failures", "difference"],
        rows,
        "Online / retrospective, on the same steps of the same episodes; difference: retrospective minus "
        "online with its 95 % paired bootstrap interval, then the number of episodes. Error in points: "
        "a difference below 0 is in favour of retrospective progress. Rank correlation: one above 0 is.",
        words=False,
    )


def side_by_side(data: Json) -> list[Table]:
    """One table a series: the measures as rows, every set of episodes as a column."""
    tables = []
    for which in ("retrospective", "online", "truth"):
        sets = [row for row in data["sets"] if which in row["series"]]
        if not sets:
            continue
        blocks = [row["series"][which] for row in sets]
        rows = []
        keys = {key for block in blocks for key in block["measures"]} - (_SELF if which == "truth" else set())
        for key in [key for key in _TITLES if key in keys]:
            cells = [_measure(key, block["measures"].get(key)) for block in blocks]
            if any(text != DASH for text in cells):
                rows.append([_TITLES[key].removesuffix(", points"), *cells])
        for against in ("truth", "success"):
            parts = [block["reliability"][against] for block in blocks]
            if which != "truth" and any(parts):
                title = f"Calibration error against {'the truth' if against == 'truth' else 'success'}"
                rows.append([title, *(cell(part and part["ece"], 1) for part in parts)])
        for name, title in NAMES.items():
            parts = [(block["agreement"].get(name) or {}).get("all") for block in blocks]
            if any(parts):
                cells = [cell(part and part["share"], 1, scale=100) for part in parts]
                rows.append([f"Sign agreement, %: {title}", *cells])
        columns = [f"{row['run']}, {row['name']}" for row in sets]
        tables.append(
            Table(f"{_title(which)}, all measures", ["measure", *columns], rows, _note(), words=False)
        )
    return tables


def of_set(row: Json) -> list[Table]:
    """The tables of one set: paired comparison, sign agreement, reliability."""
    return [table for table in (paired(row), agreement(row), *reliability(row)) if table.rows]


def paired(row: Json) -> Table:
    rows = []
    for key, title in PAIRED.items():
        value = row["paired"].get(key)
        if value and value["value"] is not None:
            digits = 1 if key in POINTS else 2
            sides = [cell({"value": value[which]}, digits) for which in ("online", "retrospective")]
            rows.append([title, *sides, cell(value, digits, sign=True), str(value["count"])])
    return Table(
        "Online against retrospective, same steps of the same episodes",
        ["measure", "online", "retrospective", "difference", "episodes"],
        rows,
        f"Difference: retrospective minus online, 95 % paired bootstrap interval over {row['resampled']}. "
        "For errors below 0, for correlations above 0 is in favour of retrospective progress.",
        words=False,
    )


def agreement(row: Json) -> Table:
    rows = []
    for which in ("retrospective", "online", "truth"):
        for name, title in NAMES.items():
            for part, words in (("all", ""), ("before_end", ", without last steps")):
                value = ((row["series"].get(which) or {}).get("agreement", {}).get(name) or {}).get(part)
                if value:
                    rows.append(
                        [
                            f"{which}: {title}{words}",
                            cell(value["share"], 1, scale=100),
                            cell({"value": value["chance"]}, 1, scale=100),
                            cell(value["kappa"], 2),
                            *(str(value[count]) for count in ("compared", "flat", "silent", "steps")),
                        ]
                    )
    return Table(
        "Do gains point where the advantages point?",
        ["gains against", "agree, %", "chance, %", "kappa", "compared", "no gain", "no sign", "steps"],
        rows,
        "Agreement is over the compared steps: those whose gain and whose reference are not 0. No gain: the "
        "series stands still. No sign: the reference is 0, such as the advantage of a state that was seen "
        "once or whose episodes all ended alike. Chance: what independent signs with the same shares of + "
        "would give. Kappa: agreement beyond chance. An advantage from a shaped reward contains the gain, so "
        "its agreement is partly circular; that from the outcome alone is not.",
        words=False,
    )


def reliability(row: Json) -> list[Table]:
    tables = []
    for against, met in (("truth", "mean truth"), ("success", "success, %")):
        for which in ("retrospective", "online"):
            part = ((row["series"].get(which) or {}).get("reliability") or {}).get(against)
            rows = [
                [
                    f"{bin['low']:.0f} to {bin['high']:.0f}",
                    str(bin["steps"]),
                    str(bin["episodes"]),
                    cell({"value": bin["said"]}, 1),
                    cell(bin["met"], 1),
                ]
                for bin in (part or {"bins": []})["bins"]
            ]
            title = f"{_title(which)} against {'the truth' if against == 'truth' else 'eventual success'}"
            head = ["said", "steps", "episodes", "mean said", met]
            note = f"Calibration error {cell(part['ece'], 1)} points." if part else ""
            tables.append(Table(title, head, rows, note, words=False))
    return tables


def over_runs(data: Json) -> list[Table]:
    """Means over the runs of a method, with t intervals."""
    tables = []
    for method in data["methods"]:
        blocks = {which: block for which, block in method["series"].items() if which != "truth"}
        rows = []
        for key, title in _TITLES.items():
            cells = [_measure(key, block["measures"].get(key)) for block in blocks.values()]
            if any(text != DASH for text in cells):
                rows.append([title.removesuffix(", points"), *cells])
        for against in ("truth", "success"):
            cells = [cell(block["ece"].get(against), 1) for block in blocks.values()]
            name = "the truth" if against == "truth" else "success"
            rows.append([f"Calibration error against {name}", *cells])
        for name, title in NAMES.items():
            cells = [cell(block["agreement"][name].get("all"), 1, scale=100) for block in blocks.values()]
            rows.append([f"Sign agreement, %: {title}", *cells])
        rows = [row for row in rows if any(text != DASH for text in row[1:])]
        runs, seeds = len(method["runs"]), method["seeds"]
        note = f"Seeds {', '.join(seeds)}; 95 % t intervals over runs, each counting once."
        if len(set(seeds)) < len(seeds):
            note += " Two of them have the same seed: are they two runs?"
        differences = [
            [title, cell(method["paired"].get(key), 1 if key in POINTS else 2, sign=True)]
            for key, title in PAIRED.items()
        ]
        tables.append(
            Table(
                f"{method['method']}, {method['name']}: mean over {runs} runs",
                ["measure", *blocks],
                rows,
                note,
                words=False,
            )
        )
        tables.append(
            Table(
                f"{method['method']}, {method['name']}: retrospective minus online",
                ["measure", "difference"],
                [row for row in differences if row[1] != DASH],
                "Against the truth, on the same steps of the same episodes; mean over runs.",
                words=False,
            )
        )
    return [table for table in tables if table.rows]


def _measure(key: str, value: Json | None) -> str:
    text = cell(value, 1 if key in POINTS else 2)
    count = (value or {}).get("count")
    return f"{text} ({count})" if count and "spearman" in key and text != DASH else text


def _title(which: str) -> str:
    return "True progress" if which == "truth" else f"{which.capitalize()} progress"


def _note() -> str:
    return (
        "In brackets 95 % bootstrap intervals; for rank correlations then the number of episodes. Errors, "
        "discrimination, leakage and last values are points of 0 to 100."
    )
