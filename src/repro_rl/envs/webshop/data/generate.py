"""Seeded generated WebShop catalogue, in the schema of the original's data files.

What makes its tasks worth solving: products of one type share brands, option groups and attributes, so the
first search result is often the wrong one; about half of a product's attributes stand in its title, the
others only in its bullets or description, so reading pays; and the attributes of an instruction are chosen so
that few products of the section hold them all (a section's types share two categories, so the reward takes
one for the other). Every attribute of a product occurs in its text, and no other attribute of its section
does, so every goal can be met in full and is rarely met by accident.

A catalogue is a pure function of (products, seed), the same on every machine: only ``Random.random`` is drawn
(Python promises its sequence), and prices are integer cents.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal, TypeVar

from repro_rl.envs.webshop.data import generate_words as words
from repro_rl.errors import ConfigError

T = TypeVar("T")
Kind = Literal["adjective", "noun", "purpose"]

FEW = 3  # products of a section that may hold all attributes of an instruction, where that can be had
_LONGEST = 3  # attributes in an instruction
_COUNTS = (2, 3, 3, 4, 4, 5)  # attributes of a product
_GROUPS = ((0.35, 0), (0.70, 1), (1.00, 2))  # cumulative share -> option groups of a product
_CARE = 12  # draws for a set of attributes that no product of the type holds yet
_ENDINGS = (99, 99, 95, 49, 50, 0)  # cents
_ASIN = string.digits + string.ascii_uppercase
_UPPER = frozenset({"gb", "uv", "bpa", "gmo", "xl", "xxl"})
_SERIES = tuple(words.SERIES.split())
_LINES: dict[Kind, tuple[str, ...]] = {
    "adjective": words.ADJECTIVE_LINES,
    "noun": words.NOUN_LINES,
    "purpose": words.PURPOSE_LINES,
}


@dataclass(slots=True, frozen=True)
class RawCatalogue:
    """The content of the original's three data files."""

    products: list[dict[str, Any]]  # items_shuffle.json
    attributes: dict[str, dict[str, Any]]  # items_ins_v2.json, by ASIN
    human: dict[str, list[dict[str, Any]]]  # items_human_ins.json, by ASIN


@dataclass(slots=True, frozen=True)
class _Type:
    """A product type with everything its products draw from."""

    query: str
    section: str
    category: str
    path: str
    low: int  # cents
    high: int
    brands: tuple[str, ...]
    attributes: dict[str, Kind]
    options: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(slots=True, frozen=True)
class _Draft:
    """A product before it is written down."""

    kind: _Type
    attributes: tuple[str, ...]  # sorted
    options: dict[str, tuple[str, ...]]
    record: dict[str, Any] = field(default_factory=dict)


class _Draw:
    """Random choices from ``Random.random`` alone."""

    def __init__(self, name: str):
        self._random = random.Random(name).random

    def below(self, bound: int) -> int:
        """An integer in 0..bound-1."""
        return int(self._random() * bound)

    def between(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        """True in this share of the calls."""
        return self._random() < share

    def pick(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[self.below(len(items))]

    def sample(self, items: Iterable[T], count: int) -> list[T]:
        """``count`` of the items, in random order."""
        rest = list(items)
        for i in range(count):
            j = i + self.below(len(rest) - i)
            rest[i], rest[j] = rest[j], rest[i]
        return rest[:count]

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """All items, in random order."""
        rest = list(items)
        return self.sample(rest, len(rest))


def generate_catalogue(products: int = 1200, seed: int = 0) -> RawCatalogue:
    """Make a catalogue of ``products`` products.

    Catalogues of different size or seed have nothing in common but the words they are made of.
    """
    if products < 1:
        raise ConfigError(f"WebShop: products={products} makes an empty catalogue; use 1 or more.")
    draw = _Draw(f"webshop-catalogue-1/{products}/{seed}")
    kinds = draw.shuffled(_types())
    seen: set[_Key] = set()
    drafts = draw.shuffled([_draft(kinds[i % len(kinds)], draw, seen) for i in range(products)])
    titles: set[str] = set()
    asins: set[str] = set()
    for draft in drafts:
        _write(draft, draw, titles, asins)
    holders = Counter(
        (draft.kind.section, part) for draft in drafts for part in _parts(draft.attributes, _LONGEST)
    )
    catalogue = RawCatalogue([draft.record for draft in drafts], {}, {})
    for position, draft in enumerate(drafts):
        asin = draft.record["asin"]
        catalogue.attributes[asin] = _annotation(draft, draw, holders, position)
        if position % 10 == 4:
            catalogue.human[asin] = [
                _human(draft, draw, holders) for _ in range(2 if draw.chance(0.2) else 1)
            ]
    return catalogue


def vocabulary() -> tuple[str, ...]:
    """Every word of the product types, attributes, option names and option values, lower case, sorted."""
    phrases = [kind.query for kind in _types()]
    phrases += [attribute for kind in _types() for attribute in kind.attributes]
    for name, values in words.OPTIONS.values():
        phrases += [name, *_split(values)]
    return tuple(sorted({word for phrase in phrases for word in phrase.lower().split()}))


# ----------------------------------------------------------------------------------------------------
# The tables


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@lru_cache(maxsize=1)
def _types() -> tuple[_Type, ...]:
    brands = words.BRANDS.split()
    departments = {department.category: (i, department) for i, department in enumerate(words.DEPARTMENTS)}
    sections = {section.name: section for section in words.SECTIONS}
    types = []
    for row in words.TYPES:
        section = sections[row.section]
        number, department = departments[section.department]
        attributes: dict[str, Kind] = {}
        for table in (department, section):
            for kind, part in zip(_LINES, table.attributes.split(";"), strict=False):
                attributes.update(dict.fromkeys(_split(part), kind))
        options = [words.OPTIONS[key] for key in _split(section.options)]
        types.append(
            _Type(
                query=row.query,
                section=section.name,
                category=department.category,
                path=f"{department.name} › {section.name} › {row.leaf}",
                low=100 * row.low,
                high=100 * row.high,
                # Eight brands a department; neighbours have four of them in common.
                brands=tuple(brands[(4 * number + i) % len(brands)] for i in range(8)),
                attributes=attributes,
                options=tuple((name, tuple(_split(values))) for name, values in options),
            )
        )
    return tuple(types)


# ----------------------------------------------------------------------------------------------------
# One product

_Key = tuple[str, tuple[str, ...]]  # query or section, and sorted attributes


def _draft(kind: _Type, draw: _Draw, seen: set[_Key]) -> _Draft:
    """Attributes (new within the type, if some draws find such) and options."""
    for _ in range(_CARE):
        attributes = tuple(sorted(draw.sample(kind.attributes, draw.pick(_COUNTS))))
        if (kind.query, attributes) not in seen:
            break
    seen.add((kind.query, attributes))
    share = draw.below(1000) / 1000
    groups = next(count for bound, count in _GROUPS if share < bound)
    chosen = sorted(draw.sample(range(len(kind.options)), min(groups, len(kind.options))))
    options = {}
    for name, values in (kind.options[i] for i in chosen):
        count = draw.between(2, min(6 if groups == 1 else 5, len(values)))
        # In the order of the table, so that sizes are listed from small to large.
        options[name] = tuple(values[i] for i in sorted(draw.sample(range(len(values)), count)))
    return _Draft(kind, attributes, options)


def _write(draft: _Draft, draw: _Draw, titles: set[str], asins: set[str]) -> None:
    """Fill the record, in the schema of the original."""
    kind, record = draft.kind, draft.record
    order = draw.shuffled(draft.attributes)
    visible = order[: (len(order) + draw.below(2)) // 2]
    hidden = order[len(visible) :]
    while True:
        brand, series, number = draw.pick(kind.brands), draw.pick(_SERIES), draw.between(100, 999)
        model = draw.pick((f"{series} {number}", f"{series[:2].upper()}{number}", series))
        title = _title(kind, visible, brand, model, draw)
        if title not in titles:
            break
    titles.add(title)
    while True:
        asin = "G" + "".join(draw.pick(_ASIN) for _ in range(9))
        if asin not in asins:
            break
    asins.add(asin)

    facts = {"brand": brand, "series": series, "query": kind.query, "days": str(draw.between(12, 90))}
    in_bullets = [attribute for attribute in hidden if draw.chance(0.65)]
    in_description = [attribute for attribute in hidden if attribute not in in_bullets]
    fillers = draw.sample(words.FILLERS, 5)
    bullets = [_line(kind, attribute, draw) for attribute in in_bullets]
    bullets += [_line(kind, attribute, draw) for attribute in visible if draw.chance(0.4)]
    bullets += [line.format(**facts) for line in fillers[: draw.between(1, 3)]]
    sentences = [draw.pick(words.INTROS).format(**facts)]
    sentences += [_line(kind, attribute, draw) for attribute in in_description]
    sentences += [line.format(**facts) for line in fillers[3 : 3 + draw.below(3)]]
    if not in_description and draw.chance(0.1):
        sentences = []

    record.update(
        name=title,
        full_description=" ".join(sentences),
        pricing=_pricing(kind, draw),
        images=[f"{asin}.jpg"],
        product_category=kind.path,
        average_rating=draw.between(31, 50) / 10 if draw.chance(0.6) else "",
        small_description=draw.shuffled(bullets),
        customization_options={
            _capital(name): [
                {"is_selected": False, "is_available": True, "value": _capital(value), "asin": asin}
                for value in values
            ]
            for name, values in draft.options.items()
        }
        or "",
        asin=asin,
        category=kind.category,
        query=kind.query,
        page=draw.between(1, 400),
        model=model,
    )


def _title(kind: _Type, attributes: Sequence[str], brand: str, model: str, draw: _Draw) -> str:
    lead, tail = _around(kind, attributes, " and ")
    return draw.pick(words.TITLES).format(
        brand=brand,
        model=model,
        type=_capital(kind.query),
        adjectives=_capital(lead) + " " * bool(lead),
        tail=_capital(tail, leave=("with", "for", "and")),
        listed=", ".join(_capital(attribute) for attribute in attributes),
    )


def _around(kind: _Type, attributes: Sequence[str], glue: str) -> tuple[str, str]:
    """What stands before the type (adjectives) and behind it (`` with <nouns> for <purposes>``)."""
    parts: dict[Kind, list[str]] = {"adjective": [], "noun": [], "purpose": []}
    for attribute in attributes:
        parts[kind.attributes[attribute]].append(attribute)
    tail = ""
    if parts["noun"]:
        tail += f" with {glue.join(parts['noun'])}"
    if parts["purpose"]:
        tail += f" for {glue.join(parts['purpose'])}"
    return ", ".join(parts["adjective"]), tail


def _line(kind: _Type, attribute: str, draw: _Draw) -> str:
    line = draw.pick(_LINES[kind.attributes[attribute]]).format(attribute=attribute)
    return line[0].upper() + line[1:]


def _capital(text: str, leave: Sequence[str] = ()) -> str:
    """Each word with a capital, abbreviations in capitals. Lower-casing gives the text back."""
    return " ".join(
        word if word in leave else word.upper() if word in _UPPER else word[:1].upper() + word[1:]
        for word in text.split(" ")
    )


def _pricing(kind: _Type, draw: _Draw) -> str:
    """``$12.99``, ``$12.99$18.5`` (a range), or nothing. Cheap prices are likelier (each doubling alike)."""
    edges = [kind.low]
    while 2 * edges[-1] < kind.high:
        edges.append(2 * edges[-1])
    edges.append(kind.high)
    step = draw.below(len(edges) - 1)
    ending = draw.pick(_ENDINGS)
    low = draw.between(edges[step], edges[step + 1] - 100) // 100 * 100 + ending
    kind_of_price = draw.below(100)
    if kind_of_price < 2:
        return ""
    if kind_of_price < 11:
        high = low * draw.between(115, 160) // 10_000 * 100 + ending
        if low < high <= 30_000:
            return f"${low / 100}${high / 100}"
    return f"${low / 100}"


# ----------------------------------------------------------------------------------------------------
# Instructions


def _parts(attributes: tuple[str, ...], longest: int) -> Iterator[tuple[str, ...]]:
    """The non-empty parts of a product's attributes, short ones first."""
    for size in range(1, min(longest, len(attributes)) + 1):
        yield from combinations(attributes, size)


def _wanted(draft: _Draft, draw: _Draw, holders: Counter[_Key], longest: int) -> list[str]:
    """Attributes for an instruction, held together by few products of the section where possible."""
    section = draft.kind.section
    parts = list(_parts(draft.attributes, longest))
    few = [part for part in parts if holders[section, part] <= FEW]
    if not few:
        fewest = min(holders[section, part] for part in parts)
        few = [part for part in parts if holders[section, part] == fewest]
    sizes = sorted({len(part) for part in few})
    size = draw.pick(sizes)
    return draw.shuffled(draw.pick([part for part in few if len(part) == size]))


def _annotation(draft: _Draft, draw: _Draw, holders: Counter[_Key], position: int) -> dict[str, Any]:
    """The record of items_ins_v2.json. As there, a few have no instruction, and a few of those nothing."""
    if position % 100 == 99:
        return {"attributes": []}
    attributes = draw.shuffled(draft.attributes)
    if position % 100 == 49:
        return {"attributes": attributes}
    wanted = _wanted(draft, draw, holders, _LONGEST)
    lead, tail = _around(draft.kind, wanted, ", ")
    return {
        "attributes": attributes,
        "instruction": f"Find me {lead}{' ' * bool(lead)}{draft.kind.query}{tail}",
        "instruction_attributes": wanted,
    }


def _human(draft: _Draft, draw: _Draw, holders: Counter[_Key]) -> dict[str, Any]:
    """One record of items_human_ins.json."""
    wanted = _wanted(draft, draw, holders, 2)
    chosen = {name: draw.pick(values) for name, values in draft.options.items()}
    named = [name for name in chosen if draw.chance(0.8)] or list(chosen)[:1]
    lead, tail = _around(draft.kind, wanted, " and ")
    spoken = [words.SPOKEN_OPTIONS[name].format(chosen[name]) for name in named]
    text = draw.pick(words.HUMAN).format(
        wish=f"{lead}{' ' * bool(lead)}{draft.kind.query}{tail}",
        options="".join(f", {phrase}" for phrase in spoken),
    )
    return {
        "asin": draft.record["asin"],
        "instruction": text,
        "attributes": list(draft.attributes),
        "options": [f"{name}: {value}" for name, value in chosen.items()] or [""],
        "instruction_attributes": wanted,
        "instruction_options": [chosen[name] for name in named],
    }
