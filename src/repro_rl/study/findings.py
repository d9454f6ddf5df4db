"""The findings of one set of episodes as plain sentences, and warnings about what limits them."""

from __future__ import annotations

from typing import Any

from repro_rl.study.numerals import fixed

FEW = 20  # episodes of one outcome: below, figures on them are coarse
COVERED = 0.9
FLAT = 0.05  # of episodes
GAP = 0.1  # in coverage, between successes and failures
LEAK = 5.0  # points
REFERENCE = {
    "trained": "the advantages trained with (they contain the gain)",
    "composite": "the step advantages of the whole reward (they contain the gain)",
    "outcome": "step advantages from the outcome alone",
    "truth": "the gains of the true progress",
}


def findings(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(findings, warnings) of one set of ``progress.json``, as sentences."""
    sentences, warnings = [], list(row["notes"])
    series, paired = row["series"], row["paired"]
    for key, unit in (("mae", " points"), ("spearman_failure", "")):
        if key in paired and paired[key]["value"] is not None:
            sentences.append(_comparison(key, paired[key], unit))
    for which in ("online", "retrospective"):
        if which in series:
            sentences += _series_findings(which, series[which])
            warnings += _series_warnings(which, series[which]["measures"])
    if not row["episodes"]:
        warnings.append("No finished episode: nothing is measured.")
    for name, count in (("successes", row["successes"]), ("failures", row["failures"])):
        if row["episodes"] and count < FEW:
            warnings.append(f"Only {count} {name}: figures on {name} are coarse, or missing.")
    if "truth" not in series and row["episodes"]:
        warnings.append("The environment gives no true progress: nothing can be compared with it.")
    for which in ("online", "retrospective"):
        if which not in series and row["episodes"]:
            warnings.append(f"No {which} progress was recorded.")
    if row["clusters"] > 1 and row["clusters"] < 10:
        warnings.append(f"Only {row['clusters']} {row['resampled']} are resampled: intervals are too narrow.")
    return sentences, warnings


def _comparison(key: str, value: dict[str, Any], unit: str) -> str:
    """Which of the two series is closer to the truth, and whether that is beyond chance."""
    mae = key == "mae"
    what = "Mean error against the truth" if mae else "Rank correlation with the truth within failures"
    digits = 1 if mae else 2
    sides = [span({"value": value[which]}, digits) for which in ("retrospective", "online")]
    numbers = f"retrospective {sides[0]}, online {sides[1]}, difference {span(value, digits)}{unit}"
    low, high = value["low"], value["high"]
    if low is None or high is None:
        verdict = "no interval, so nothing is shown"
    elif low <= 0 <= high:
        verdict = "the interval holds 0, so neither is shown to be closer"
    else:
        better = (high < 0) if mae else (low > 0)
        verdict = f"{'retrospective' if better else 'online'} progress is closer"
    return f"{what}, same steps of the same {value['count']} episodes: {numbers}: {verdict}."


def _series_findings(which: str, block: dict[str, Any]) -> list[str]:
    sentences = []
    values = block["measures"]
    series, truth, leak = (values.get(key) for key in ("discrimination", "truth_discrimination", "leakage"))
    if series and series["value"] is not None:
        text = f"{which.capitalize()} intermediate discrimination is {span(series, 1)} points"
        if truth and leak and truth["value"] is not None:
            text += f"; the truth's on the same steps is {span(truth, 1)}, leakage {span(leak, 1)}"
        sentences.append(f"{text}.")
    for name in ("trained", "composite", "outcome", "truth"):
        value = (block["agreement"].get(name) or {}).get("all")
        if which == "retrospective" and value and value["share"]["value"] is not None:
            sentences.append(
                f"{which.capitalize()} gains have the sign of {REFERENCE[name]} on "
                f"{span(value['share'], 1, 100)} % of {value['compared']} compared steps (chance with the "
                f"same signs: {100 * value['chance']:.1f} %); of {value['steps']} steps {value['flat']} have "
                f"no gain and {value['silent']} no sign to compare with."
            )
    return sentences


def _series_warnings(which: str, values: dict[str, Any]) -> list[str]:
    def of(key: str) -> float | None:
        value: float | None = (values.get(key) or {}).get("value")
        return value

    warnings = []
    covered, won, lost = of("covered"), of("covered_success"), of("covered_failure")
    if covered is not None and covered < COVERED:
        warnings.append(
            f"{which.capitalize()} progress covers only {100 * covered:.0f} % of the episodes: the figures "
            "rest on a selection."
        )
    if won is not None and lost is not None and abs(won - lost) > GAP:
        warnings.append(
            f"{which.capitalize()} progress covers {100 * won:.0f} % of successes and {100 * lost:.0f} % of "
            "failures: the two are selected differently."
        )
    for part, name in (("success", "successes"), ("failure", "failures")):
        flat = of(f"constant_{part}")
        if flat is not None and flat > FLAT:
            warnings.append(
                f"{which.capitalize()} progress never changes in {100 * flat:.0f} % of the {name} with 3 "
                "steps or more: they are left out of the rank correlation, which therefore flatters."
            )
    leak = (values.get("leakage") or {}).get("low")
    if leak is not None and leak > LEAK:
        warnings.append(
            f"{which.capitalize()} progress tells outcomes apart by more than the states do (leakage at "
            f"least {leak:.1f} points): its discrimination is partly knowledge of the outcome."
        )
    return warnings


def span(value: dict[str, Any], digits: int, scale: float = 1.0, *, sign: bool = False) -> str:
    """12.3 [10.0, 14.6]; without ends the value alone. ``sign``: + where a number is positive."""

    def write(number: float) -> str:
        return fixed(scale * number, digits, sign=sign)

    low, high = value.get("low"), value.get("high")
    ends = "" if low is None or high is None else f" [{write(low)}, {write(high)}]"
    return write(value["value"]) + ends
