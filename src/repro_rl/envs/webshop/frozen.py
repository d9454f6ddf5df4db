"""Frozen goal and price lists: JSON lines, so that anybody's panel can be fixed and played."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repro_rl.envs.webshop.data.jsonstream import GZIP_MAGIC
from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.goals import Goal, Products, drawn_price, price_key
from repro_rl.errors import DataError, TaskError


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


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) for each line of a JSON lines file, gzip or not. Raises DataError naming the line."""
    if not path.is_file():
        raise DataError("no such file", file=path)
    with open(path, "rb") as probe:
        packed = probe.read(2) == GZIP_MAGIC
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as handle:
            for number, line in enumerate(handle, start=1):
                if not line.strip():
                    continue
                where = f"line {number}"
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise DataError(f"is not JSON ({error})", file=path, record=where) from error
                if not isinstance(record, dict):
                    raise DataError("is no JSON object", file=path, record=where)
                yield where, record
    except (OSError, EOFError) as error:
        raise DataError(f"cannot be read to its end: {error}", file=path) from error


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_prices(path: Path) -> dict[str, float]:
    """A frozen price list: JSON lines with ``asin`` and ``price``. Raises DataError."""
    prices: dict[str, float] = {}
    for where, record in read_lines(path):
        if not isinstance(record.get("asin"), str):
            raise DataError("must be text", file=path, record=where, field="asin")
        if not _is_number(record.get("price")):
            raise DataError("must be a finite number", file=path, record=where, field="price")
        prices[record["asin"]] = float(record["price"])
    return prices


def read_goals(path: Path, catalogue: Products) -> list[Goal]:
    """A frozen goal list: JSON lines in the original's field names, in panel order.

    ``goal_options`` is an object (synthetic) or a list of values (human); ``weight`` may be missing.
    Raises DataError naming line and field, also for an ASIN that the catalogue does not have.
    """
    goals: list[Goal] = []
    for where, record in read_lines(path):
        for key in ("asin", "name", "category", "query", "product_category", "instruction_text"):
            if not isinstance(record.get(key), str):
                raise DataError("must be text", file=path, record=where, field=key)
        if catalogue.number(record["asin"]) is None:
            raise DataError(
                f"{record['asin']!r} is no product of this catalogue ({len(catalogue)} products); "
                "import the products the goals were made for",
                file=path,
                record=where,
                field="asin",
            )
        if not _is_text_list(record.get("attributes")) or not record["attributes"]:
            raise DataError(
                "must be a list of texts, at least one", file=path, record=where, field="attributes"
            )
        cap, weight = record.get("price_upper"), record.get("weight")
        if not isinstance(cap, (int, float)) or not _is_number(cap) or cap <= 0:
            raise DataError("must be a number above 0", file=path, record=where, field="price_upper")
        wanted = record.get("goal_options")
        pairs: tuple[tuple[str, str], ...] | None = None
        if isinstance(wanted, dict) and _is_text_list(list(wanted.values())):
            pairs = tuple(wanted.items())
        elif not isinstance(wanted, list) or not _is_text_list(wanted):
            raise DataError(
                "must be an object of texts or a list of texts",
                file=path,
                record=where,
                field="goal_options",
            )
        goals.append(
            Goal(
                id=f"{record['asin']}/frozen/{len(goals)}",
                asin=record["asin"],
                name=record["name"],
                category=record["category"],
                query=record["query"],
                product_category=record["product_category"],
                instruction=record["instruction_text"],
                attributes=tuple(record["attributes"]),
                price_upper=float(cap),
                named_options=pairs,
                options=tuple(wanted if pairs is None else (value for _, value in pairs)),
                weight=float(weight) if isinstance(weight, (int, float)) and _is_number(weight) else 1.0,
            )
        )
    if not goals:
        raise DataError("holds no goal", file=path)
    return goals
