"""The tables of the progress analysis: the page and the Markdown file print the same cells."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from repro_rl.report.load import Json
from repro_rl.report.metrics import FURTHER, PAIRED, QUALITY, REFERENCES
from repro_rl.report.text_table import Table, make_table, series_title
from repro_rl.study.findings import span
from repro_rl.study.numerals import DASH
from repro_rl.study.progress import POINTS

AGAINST = {"truth": "the truth", "success": "success"}
_TITLES = {**{key: title for key, (title, _) in QUALITY.items()}, **FURTHER}
# Left out of the table of the truth: trivial for the truth against itself.
_SELF = {
    f"{key}_{part}" for key in ("mae", "spearman", "gain_spearman", "epic") for part in ("success", "failure")
}
_SELF |= {"mae", "epic", "leakage", "truth_discrimination"}


def cell(value: Json | None, digits: int = 2, *, scale: float = 1.0, sign: bool = False) -> str:
    """12.3 [10.0, 14.6]; a dash where there is no value, no brackets where there is no interval."""
    if not value or value.get("value") is None:
        return DASH

    return span(value, digits, scale, sign=sign)


def closeness_table(data: Json) -> Table:
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
    return make_table("closeness", rows)


def side_by_side(data: Json) -> list[Table]:
    """One table a series: the measures as rows, every set of episodes as a column."""
    tables = []
    for which in ("retrospective", "online", "truth"):
        sets = [row for row in data["sets"] if which in row["series"]]
        if not sets:
            continue
        blocks = [row["series"][which] for row in sets]
        rows = _measure_rows([block["measures"] for block in blocks], _SELF if which == "truth" else ())
        for against, name in AGAINST.items():
            parts = [block["reliability"][against] for block in blocks]
            if which != "truth" and any(parts):
                errors = [cell(part and part["ece"], 1) for part in parts]
                rows.append([f"Calibration error against {name}", *errors])
        for name, title in REFERENCES.items():
            parts = [(block["agreement"].get(name) or {}).get("all") for block in blocks]
            if any(parts):
                cells = [cell(part and part["share"], 1, scale=100) for part in parts]
                rows.append([f"Sign agreement, %: {title}", *cells])
        columns = [f"{row['run']}, {row['name']}" for row in sets]
        tables.append(make_table("measures", rows, columns=columns, series=series_title(which)))
    return tables


def of_set(row: Json) -> list[Table]:
    """The tables of one set: paired comparison, sign agreement, reliability."""
    return [
        table for table in (paired_table(row), agreement_table(row), *reliability_tables(row)) if table.rows
    ]


def paired_table(row: Json) -> Table:
    """Online and retrospective progress on the same episodes, and the difference, a row for each measure."""
    rows = []
    for key, title in PAIRED.items():
        value = row["paired"].get(key)
        if value and value["value"] is not None:
            digits = _digits(key)
            sides = [cell({"value": value[which]}, digits) for which in ("online", "retrospective")]
            rows.append([title, *sides, cell(value, digits, sign=True), str(value["count"])])
    return make_table("paired", rows, resampled=row["resampled"])


def agreement_table(row: Json) -> Table:
    """How often the sign of a gain agrees with each reference, a row for each series and reference."""
    rows = []
    for which in ("retrospective", "online", "truth"):
        for name, title in REFERENCES.items():
            for part, suffix in (("all", ""), ("before_end", ", without last steps")):
                value = ((row["series"].get(which) or {}).get("agreement", {}).get(name) or {}).get(part)
                if value:
                    rows.append(
                        [
                            f"{which}: {title}{suffix}",
                            cell(value["share"], 1, scale=100),
                            cell({"value": value["chance"]}, 1, scale=100),
                            cell(value["kappa"], 2),
                            *(str(value[count]) for count in ("compared", "flat", "silent", "steps")),
                        ]
                    )
    return make_table("agreement", rows)


def reliability_tables(row: Json) -> list[Table]:
    """Mean true progress, and share of successes, of the steps in each bin of reported progress."""
    tables = []
    for against, reached in (("truth", "mean truth"), ("success", "success, %")):
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
            table = make_table(
                "reliability",
                rows,
                series=series_title(which),
                against="the truth" if against == "truth" else "eventual success",
                reached=reached,
                note=f"Calibration error {cell(part['ece'], 1)} points." if part else "",
            )
            tables.append(table)
    return tables


def method_tables(data: Json) -> list[Table]:
    """Means over the runs of a method, with t intervals."""
    tables = []
    panels: dict[str, set[str]] = {}  # by the name of a set
    for row in data["sets"]:
        panels.setdefault(row["name"], set()).add(row["panel"])
    for method in data["methods"]:
        blocks = {which: block for which, block in method["series"].items() if which != "truth"}
        rows = _measure_rows([block["measures"] for block in blocks.values()])
        for against, name in AGAINST.items():
            cells = [cell(block["ece"].get(against), 1) for block in blocks.values()]
            rows.append([f"Calibration error against {name}", *cells])
        for name, title in REFERENCES.items():
            cells = [cell(block["agreement"][name].get("all"), 1, scale=100) for block in blocks.values()]
            rows.append([f"Sign agreement, %: {title}", *cells])
        rows = [row for row in rows if any(text != DASH for text in row[1:])]
        seeds = method["seeds"]
        twice = " Two of them have the same seed: are they two runs?" if len(set(seeds)) < len(seeds) else ""
        where = f" on {method['panel'] or 'an unknown panel'}" if len(panels[method["name"]]) > 1 else ""
        texts = {
            **{"method": method["method"], "name": f"{method['name']}{where}", "runs": len(method["runs"])},
            **{"seeds": ", ".join(seeds), "warning": twice},
        }
        differences = [
            [title, cell(method["paired"].get(key), _digits(key), sign=True)] for key, title in PAIRED.items()
        ]
        differences = [row for row in differences if row[1] != DASH]
        tables.append(make_table("over_runs", rows, columns=list(blocks), **texts))
        tables.append(make_table("over_runs_paired", differences, **texts))
    return [table for table in tables if table.rows]


def _measure_rows(measures: Sequence[Json], left_out: Collection[str] = ()) -> list[list[str]]:
    """One row a measure that any of the series has, one cell a series."""
    rows = []
    for key, title in _TITLES.items():
        cells = [_measure(key, values.get(key)) for values in measures]
        if key not in left_out and any(text != DASH for text in cells):
            rows.append([title.removesuffix(", points"), *cells])
    return rows


def _measure(key: str, value: Json | None) -> str:
    text = cell(value, _digits(key))
    count = (value or {}).get("count")
    return f"{text} ({count})" if count and "spearman" in key and text != DASH else text


def _digits(key: str) -> int:
    return 1 if key in POINTS else 2
