"""What each logged metric and each measure of progress is, in one line: the tables of metrics.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from repro_rl.files import TABLE, read_yaml


@dataclass(slots=True, frozen=True)
class Metric:
    """How a metric is drawn and explained."""

    __pydantic_config__ = TABLE
    title: str
    unit: str  # the y axis
    meaning: str = ""
    top: int = 0  # of the y axis: 1 for rates, 100 for progress, 0 to follow the data


@dataclass(slots=True, frozen=True)
class _Tables:
    """What ``metrics.yaml`` holds; the first three by the name of the metric."""

    __pydantic_config__ = TABLE
    health: dict[str, Metric]  # whether training is sound
    reward: dict[str, Metric]  # terms of the composite reward
    other: dict[str, Metric]  # in the folded part of the page
    quality: dict[str, tuple[str, str]]  # title and explanation of a measure of progress
    further: dict[str, str]  # titles of the measures of ``repro-rl progress`` alone
    paired: dict[str, str]  # titles in the comparison of two series
    references: dict[str, str]  # what the sign of a gain is compared with
    columns: dict[str, tuple[str, int]]  # of a comparison: short title, digits


_TABLES = read_yaml(Path(__file__).with_name("metrics.yaml"), _Tables)
HEALTH, REWARD, OTHER, QUALITY = _TABLES.health, _TABLES.reward, _TABLES.other, _TABLES.quality
FURTHER, PAIRED, REFERENCES, COLUMNS = _TABLES.further, _TABLES.paired, _TABLES.references, _TABLES.columns

# Drawn elsewhere, or the axes themselves.
ELSEWHERE = frozenset(
    {"iteration", "env_steps", "seconds", "rollout/success"}
    | {f"validation/{name}" for name in ("success", "low", "high", "tasks")}
)
