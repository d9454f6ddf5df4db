"""The table of claims of docs/results.md: ``python docs/data/claims.py``.

Every row is a difference between two arms, paired by seed, from the studies beside this script.
``tests/test_results_page.py`` compares the page with what this prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pooled import by_seed
from tables import interval, short

from repro_rl.study.stats import mean_interval

HERE = Path(__file__).parent
ALFWORLD = ("alfworld_study", "alfworld_seeds_5_9")
ZOO = ("zoo_sokoban_seeds_30_31", "zoo_sokoban_seeds_32_34", "zoo_sokoban_seeds_35_39")
ZOO_ALFWORLD = tuple(
    f"zoo_alfworld_seed{part}" for part in ("_30", "_31", "s_32_33", "_34", "s_35_36", "_37", "s_38_39")
)
ZOO_WEBSHOP = ("zoo_webshop_seeds_30_31", "zoo_webshop_seeds_32_33", "zoo_webshop_seeds_34_39")
CHOSEN = "repro-act-graph-fixed-judge"  # by the study repro-family


@dataclass(frozen=True, slots=True)
class Claim:
    """A difference that is claimed."""

    number: int
    first: str  # the arm that is looked at
    other: str  # the arm that it is compared with
    files: tuple[str, ...]  # names of the studies, their seeds taken together
    where: str  # environment and start, as the page calls them


CLAIMS = (
    Claim(1, "repro", "gigpo", ALFWORLD, "ALFWorld"),
    Claim(2, "repro", "grpo", ALFWORLD, "ALFWorld"),
    Claim(3, "repro", "meta", ALFWORLD, "ALFWorld"),
    Claim(4, "repro", "repro-no-shaping", ALFWORLD, "ALFWorld"),
    Claim(5, "repro", "oracle", ALFWORLD, "ALFWorld"),
    Claim(6, "repro", "gigpo", ("sokoban_study",), "Sokoban"),
    Claim(7, "repro", "oracle", ("sokoban_study",), "Sokoban"),
    Claim(8, "repro", "gigpo", ("sokoban_report_after",), "Sokoban, progress after the action"),
    Claim(9, "repro", "gigpo", ("sokoban_rare",), "Sokoban, rare success"),
    Claim(10, "repro", "grpo", ("sokoban_rare",), "Sokoban, rare success"),
    Claim(11, "repro-act", "gigpo", ("sokoban_rare",), "Sokoban, rare success"),
    Claim(12, "repro-act-fixed-judge", "repro-act", ("sokoban_rare",), "Sokoban, rare success"),
    Claim(13, "repro-coef1", "repro", ("sokoban_rare",), "Sokoban, rare success"),
    Claim(14, "repro", "gigpo", ("webshop_study",), "WebShop"),
    Claim(15, "repro", "gigpo", ("webshop_rare",), "WebShop, rare success"),
    Claim(16, "repro", "gigpo", ("webshop_before",), "WebShop, one-query expert"),
    Claim(17, CHOSEN, "g2po", ZOO, "Sokoban, rare success, every rule tuned"),
    Claim(18, CHOSEN, "gigpo", ZOO, "Sokoban, rare success, every rule tuned"),
    Claim(19, CHOSEN, "oracle-act", ZOO, "Sokoban, rare success, every rule tuned"),
    Claim(20, "repro", "gigpo", ZOO, "Sokoban, rare success, every rule tuned"),
    Claim(21, CHOSEN, "g2po", ZOO_ALFWORLD, "ALFWorld, every rule tuned"),
    Claim(22, "repro", "gigpo", ZOO_ALFWORLD, "ALFWorld, every rule tuned"),
    Claim(23, CHOSEN, "value-shaping", ZOO_WEBSHOP, "WebShop, every rule tuned"),
    Claim(24, "repro", "gigpo", ZOO_WEBSHOP, "WebShop, every rule tuned"),
    Claim(25, "repro", CHOSEN, ZOO_WEBSHOP, "WebShop, every rule tuned"),
)


def core_hours(files: tuple[str, ...], *names: str) -> float:
    """Training time of the arms' runs on one thread, without warm starts and evaluations."""
    total = 0.0
    for file in files:
        arms = json.loads((HERE / f"{file}.json").read_text())["evaluations"][0]["arms"]
        total += sum(arm["seconds"]["mean"] * len(arm["seeds"]) for arm in arms if arm["name"] in names)
    return total / 3600


def row(claim: Claim) -> str:
    arms, _ = by_seed([str(HERE / f"{file}.json") for file in claim.files])
    first, other = arms[claim.first], arms[claim.other]
    seeds = sorted(first.keys() & other.keys())
    differences = [first[seed] - other[seed] for seed in seeds]
    found = mean_interval(differences)
    means = [short(sum(arm[s] for s in seeds) / len(seeds)) for arm in (first, other)]
    cells = (
        str(claim.number),
        f"{claim.where}: `{claim.first}` against `{claim.other}`",
        f"{means[0]} : {means[1]}",
        interval(found.mean, [found.low, found.high], signed=True),
        verdict(found.low, found.high),
        f"{sum(d > 0 for d in differences)} of {len(seeds)}",
        f"{core_hours(claim.files, claim.first, claim.other):.1f}",
    )
    return f"| {' | '.join(cells)} |"


def verdict(low: float, high: float) -> str:
    """What the 95 % interval of a difference says."""
    return "ahead" if low > 0 else "behind" if high < 0 else "level"


def table() -> str:
    head = ("", "claim", "success", "difference [95 %]", "", "seeds ahead", "core-hours")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(row, CLAIMS)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
