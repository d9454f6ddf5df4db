"""Goals: instruction, attributes, options and price cap. Pure functions of the data and one seed.

The original draws prices and caps without a seed, and every worker shuffles the goals. Here a price depends
only on (seed, ASIN), a cap on (seed, ASIN, instruction), and the order on (seed, number of goals).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from repro_rl.envs.panel import content_digest
from repro_rl.envs.webshop.data.products import DEFAULT_PRICE, Product
from repro_rl.errors import TaskError
from repro_rl.files import check_record, parse_json, write_bytes
from repro_rl.files.limits import MAX_TEXT
from repro_rl.files.records import Count, Text
from repro_rl.random_streams import name_key

CAPS = tuple(10.0 * i for i in range(1, 100))
NO_CAP = 1_000_000.0  # the original's cap when no two multiples of ten lie above the price


class Products(Protocol):
    """The part of a catalogue that goals use."""

    digest: str
    folder: Path

    def __len__(self) -> int: ...
    def product(self, number: int) -> Product: ...
    def number(self, asin: str) -> int | None: ...
    def asin(self, number: int) -> str: ...


@dataclass(slots=True, frozen=True)
class Goal:
    """What the agent has to buy."""

    id: str  # the task id
    asin: str  # of the target product
    name: str  # its title
    category: str  # of it, as are the next two: see ``Product``
    query: str
    product_category: str
    instruction: str  # the text on the pages, price included
    attributes: tuple[str, ...]  # that the product must have
    price_upper: float  # dollars; NO_CAP: any price
    named_options: tuple[tuple[str, str], ...] | None  # (group, value) of synthetic goals
    options: tuple[str, ...]  # the option values to choose
    weight: float = field(default=1.0, compare=False)

    def content(self) -> str:
        """Canonical text of everything that decides an episode's reward; input of the panel digests."""
        options = self.options if self.named_options is None else [list(pair) for pair in self.named_options]
        parts = [self.asin, self.name, self.category, self.query, self.product_category, self.instruction]
        return json.dumps([*parts, self.attributes, self.price_upper, options], ensure_ascii=True)


class GoalList(Protocol):
    """All goals of one setting, in order: drawn (here) or frozen (``frozen.py``)."""

    name: str  # synthetic, human or frozen
    price_key: str  # equal keys: every product has the same price

    def __len__(self) -> int: ...

    def goal(self, position: int) -> Goal:
        """The goal at ``position``, 0-based, in list order."""
        ...

    def position(self, task_id: str) -> int:
        """The position of a task. Raises TaskError on an unknown id."""
        ...

    def asin(self, position: int) -> str:
        """The target's ASIN, without building the goal."""
        ...

    def price(self, product: Product) -> float:
        """The product's price in dollars in this setting."""
        ...


class DrawnGoals:
    """Synthetic or human goals drawn from a catalogue with ``seed``, in an order shuffled with it.

    Task ids are ``<asin>/<type>/<number>``: the number of the option combination (synthetic) or of the
    instruction (human) within the product.
    """

    def __init__(self, catalogue: Products, kind: str, seed: int, prices: dict[str, float] | None = None):
        self.name, self.price_key = kind, price_key(seed, prices)
        self._catalogue, self._kind, self._seed, self._prices = catalogue, kind, seed, prices
        self._counts, self._attributes = goal_counts(catalogue, kind)
        self._starts = np.concatenate(([0], np.cumsum(self._counts)))  # [products + 1]
        total = int(self._starts[-1])
        rng = np.random.Generator(np.random.PCG64(name_key(seed, "webshop goals", kind)))
        self._order = rng.permutation(total).astype(np.int32 if total < 2**31 else np.int64)
        self._positions: np.ndarray[Any, np.dtype[np.integer[Any]]] | None = None  # inverse of _order

    def __len__(self) -> int:
        return len(self._order)

    def _split(self, number: int) -> tuple[int, int]:
        product = int(np.searchsorted(self._starts, number, side="right")) - 1
        return product, number - int(self._starts[product])

    def asin(self, position: int) -> str:
        return self._catalogue.asin(self._split(int(self._order[position]))[0])

    def goal(self, position: int) -> Goal:
        number, part = self._split(int(self._order[position]))
        return self._make(self._catalogue.product(number), part)

    def position(self, task_id: str) -> int:
        asin, kind, part = [*task_id.rsplit("/", 2), "", ""][:3]
        number = self._catalogue.number(asin)
        valid = number is not None and kind == self._kind and part.isascii() and part.isdigit()
        if number is None or not valid or len(part) > 9 or int(part) >= self._counts[number]:
            raise TaskError(
                f"WebShop has no task {task_id!r} among its {len(self)} {self._kind} goals; ids look like "
                f"{self.goal(0).id if len(self) else '<asin>/' + self._kind + '/0'}."
            )
        if self._positions is None:  # on first use only: it takes as much memory as the order
            positions = np.empty_like(self._order)
            positions[self._order] = np.arange(len(self._order), dtype=self._order.dtype)
            self._positions = positions
        return int(self._positions[int(self._starts[number]) + int(part)])

    def price(self, product: Product) -> float:
        return drawn_price(product, self._seed, self._prices)

    def _make(self, product: Product, part: int) -> Goal:
        synthetic = self._kind == "synthetic"
        cap = drawn_cap(self.price(product), self._seed, product.asin, "" if synthetic else str(part))
        ending = "" if cap == NO_CAP else f", and price lower than {cap:.2f} dollars"
        named: tuple[tuple[str, str], ...] | None = None
        if synthetic:
            groups = sorted(product.options)
            values = _combination([product.options[group] for group in groups], part)
            named = tuple(zip(groups, values, strict=True))
            attributes, options = product.instruction_attributes, tuple(values)
            text = product.instruction or ""
            if named:
                text += " with " + ", and ".join(f"{group}: {value}" for group, value in named)
            weight = sum(1 / self._attributes[a] for a in attributes) / len(attributes)
        else:
            human = _usable(product)[part]
            attributes, options, text, weight = human.attributes, human.options, human.text.strip("."), 1.0
        return Goal(
            id=f"{product.asin}/{self._kind}/{part}",
            asin=product.asin,
            name=product.title,
            category=product.category,
            query=product.query,
            product_category=product.product_category,
            instruction=text + ending,
            attributes=attributes,
            price_upper=cap,
            named_options=named,
            options=options,
            weight=weight,
        )


def _uniform(*names: object) -> float:
    return (name_key(*names) >> 11) / (1 << 53)


def price_key(seed: int, frozen: dict[str, float] | None) -> str:
    """The arguments, besides the products, that decide all prices of a setting."""
    listed = "" if frozen is None else content_digest(f"{asin} {frozen[asin]!r}" for asin in sorted(frozen))
    return f"{seed} {listed}"


def drawn_price(product: Product, seed: int, frozen: dict[str, float] | None = None) -> float:
    """The product's price in dollars: frozen, else fixed, else uniform in its range by (seed, ASIN)."""
    if frozen is not None and product.asin in frozen:
        return frozen[product.asin]
    if not product.prices:
        return DEFAULT_PRICE
    if len(product.prices) == 1:
        return product.prices[0]
    low, high = product.prices[:2]
    return low + (high - low) * _uniform(seed, "webshop price", product.asin)


def drawn_cap(price: float, seed: int, asin: str, instruction: str) -> float:
    """The larger of two of the next four multiples of ten above ``price``; NO_CAP when there are not two."""
    above = [cap for cap in CAPS if cap > price][:4]
    if len(above) < 2:
        return NO_CAP
    pairs = list(itertools.combinations(above, 2))
    return pairs[int(_uniform(seed, "webshop cap", asin, instruction) * len(pairs))][1]


def _combination(groups: Sequence[Sequence[str]], number: int) -> list[str]:
    """Combination ``number`` of one value per group, in itertools.product's order."""
    values = []
    for group in reversed(groups):
        number, index = divmod(number, len(group))
        values.append(group[index])
    return values[::-1]


def _usable(product: Product) -> list[Any]:
    return [human for human in product.human if human.attributes]


_COUNTS: dict[tuple[str, str], tuple[np.ndarray[Any, Any], Counter[str]]] = {}


def goal_counts(catalogue: Products, kind: str) -> tuple[np.ndarray[Any, Any], Counter[str]]:
    """Goals per product [products], and the number of goals with each attribute (synthetic goals only).

    Counted once per catalogue and stored in its folder: a million products take a minute.
    """
    key = (catalogue.digest, kind)
    if key not in _COUNTS:
        path = catalogue.folder / f"goals-{kind}-{catalogue.digest[:16]}.npz"
        counts = _load_counts(path, len(catalogue))
        if counts is None:
            counts = _count(catalogue, kind)
            _save_counts(path, *counts)
        _COUNTS[key] = counts
    return _COUNTS[key]


def _count(catalogue: Products, kind: str) -> tuple[np.ndarray[Any, Any], Counter[str]]:
    counts = np.zeros(len(catalogue), np.int64)
    attributes: Counter[str] = Counter()
    for number in range(len(catalogue)):
        product = catalogue.product(number)
        if kind == "human":
            counts[number] = len(_usable(product))
        elif product.instruction is not None and product.instruction_attributes:
            counts[number] = math.prod(len(values) for values in product.options.values())
            for attribute in product.instruction_attributes:
                attributes[attribute] += int(counts[number])
    return counts, attributes


def _load_counts(path: Path, products: int) -> tuple[np.ndarray[Any, Any], Counter[str]] | None:
    try:
        with zipfile.ZipFile(path) as parts:
            if any(part.file_size > MAX_TEXT + 8 * products for part in parts.infolist()):
                return None
        with np.load(path, allow_pickle=False) as data:
            counts = data["counts"]
            attributes = check_record(dict[Text, Count], parse_json(data["attributes"].tobytes()))
    except Exception:  # numpy, zipfile and zlib each raise their own
        return None  # no file, or a damaged one: counted again
    valid = counts.shape == (products,) and counts.dtype == np.int64 and (counts >= 0).all()
    return (counts, Counter(attributes)) if valid else None


def _save_counts(path: Path, counts: np.ndarray[Any, Any], attributes: Counter[str]) -> None:
    memory = io.BytesIO()
    text = np.frombuffer(json.dumps(attributes).encode(), np.uint8)
    np.savez_compressed(memory, counts=counts, attributes=text)
    with contextlib.suppress(OSError):  # a read-only catalogue is counted in each process
        write_bytes(path, memory.getvalue())
