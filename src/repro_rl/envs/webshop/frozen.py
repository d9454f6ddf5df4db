"""Frozen goal and price lists: JSON lines, so that the panels of other programs can be played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.goals import Goal, Products, drawn_price, price_key
from repro_rl.errors import DataError, TaskError
from repro_rl.files import finite, json_lines


class FrozenGoals:
    """Goals read from a file, in its order. Task ids are ``<asin>/frozen/<position>``."""

    def __init__(self, goals: Sequence[Goal], seed: int, prices: dict[str, float] | None):
        self.name, self.price_key = "frozen", price_key(seed, prices)
        self._goals, self._seed, self._prices = goals, seed, prices

    def __len__(self) -> int:
        return len(self._goals)

    def goal(self, position: int) -> Goal:
        return self._goals[position]

    def asin(self, position: int) -> str:
        return self._goals[position].asin

    def position(self, task_id: str) -> int:
        part = task_id.rsplit("/", 1)[-1]
        if part.isascii() and part.isdigit() and len(part) < 10:
            position = int(part)
            if position < len(self._goals) and self._goals[position].id == task_id:
                return position
        raise TaskError(
            f"WebShop has no task {task_id!r} among its {len(self)} frozen goals; ids look like "
            f"{self._goals[0].id}."
        )

    def price(self, product: Product) -> float:
        return drawn_price(product, self._seed, self._prices)


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_prices(path: Path) -> dict[str, float]:
    """A frozen price list: JSON lines with ``asin`` and ``price``. Raises DataError."""
    prices: dict[str, float] = {}
    for number, record in json_lines(path):
        where = f"line {number}"
        if not isinstance(record.get("asin"), str):
            raise DataError("must be text", file=path, record=where, field="asin")
        if not finite(record.get("price")) or record["price"] < 0:
            raise DataError("must be a finite number, 0 or more", file=path, record=where, field="price")
        prices[record["asin"]] = float(record["price"])
    return prices


def read_goals(path: Path, catalogue: Products) -> list[Goal]:
    """A frozen goal list: JSON lines in the original's field names, in panel order.

    ``goal_options`` is an object (synthetic) or a list of values (human); ``weight`` may be missing.
    Raises DataError naming line and field, also for an ASIN that the catalogue does not have.
    """
    goals: list[Goal] = []
    for number, record in json_lines(path):
        goals.append(_goal(_Line(path, f"line {number}", record), catalogue, len(goals)))
    if not goals:
        raise DataError("holds no goal", file=path)
    return goals


@dataclass(slots=True, frozen=True)
class _Line:
    """One record of a goal list."""

    file: Path
    where: str  # such as "line 3"
    record: dict[str, Any]

    def error(self, field: str, message: str) -> DataError:
        return DataError(message, file=self.file, record=self.where, field=field)


def _goal(line: _Line, catalogue: Products, position: int) -> Goal:
    """The checked goal of one line. Raises DataError naming the field."""
    record = line.record
    for key in ("asin", "name", "category", "query", "product_category", "instruction_text"):
        if not isinstance(record.get(key), str):
            raise line.error(key, "must be text")
    if catalogue.number(record["asin"]) is None:
        raise line.error(
            "asin",
            f"{record['asin']!r} is no product of this catalogue ({len(catalogue)} products); "
            "import the products the goals were made for",
        )
    if not _is_text_list(record.get("attributes")) or not record["attributes"]:
        raise line.error("attributes", "must be a list of texts, at least one")
    cap, weight = record.get("price_upper"), record.get("weight", 1.0)
    if not finite(cap) or cap <= 0:
        raise line.error("price_upper", "must be a number above 0")
    if not finite(weight) or weight < 0:
        raise line.error("weight", "must be a number, 0 or more")
    named, options = _goal_options(line)
    return Goal(
        id=f"{record['asin']}/frozen/{position}",
        asin=record["asin"],
        name=record["name"],
        category=record["category"],
        query=record["query"],
        product_category=record["product_category"],
        instruction=record["instruction_text"],
        attributes=tuple(record["attributes"]),
        price_upper=float(cap),
        named_options=named,
        options=options,
        weight=float(weight),
    )


def _goal_options(line: _Line) -> tuple[tuple[tuple[str, str], ...] | None, tuple[str, ...]]:
    """((group, value) pairs or None, values)."""
    options = line.record.get("goal_options")
    if isinstance(options, dict) and _is_text_list(list(options.values())):
        return tuple(options.items()), tuple(options.values())
    if isinstance(options, list) and _is_text_list(options):
        return None, tuple(options)
    raise line.error("goal_options", "must be an object of texts or a list of texts")
