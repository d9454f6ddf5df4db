"""Seeded generated WebShop catalogue, in the schema of the original's data files.

The tasks are built to need search and reading. Products of one type share brands, option groups and
attributes, so the first search result is often wrong. About half of a product's attributes are in its title,
the others only in its bullets or description. The attributes of an instruction are chosen so that few
products of the section have them all. The types of a section share two categories, so the reward does not
tell them apart. Every attribute of a product occurs in its text, and no other attribute of its section does.
So every goal can reach score 1.0, and rarely does so by chance.

A catalogue is a pure function of (products, seed), the same on every machine; prices are integer cents.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import Any

from repro_rl.envs.draws import Draws
from repro_rl.envs.webshop.data.generate_words import Kind, catalogue_words
from repro_rl.errors import ConfigError

FEW = 3  # most products of a section with all attributes of an instruction, where possible
_LONGEST = 3  # attributes in an instruction
_COUNTS = (2, 3, 3, 4, 4, 5)  # attributes of a product
_GROUPS = ((0.35, 0), (0.70, 1), (1.00, 2))  # cumulative share -> option groups of a product
_MAX_DRAWS = 12  # draws for a set of attributes that no product of the type has yet
_ENDINGS = (99, 99, 95, 49, 50, 0)  # cents
_ASIN = string.digits + string.ascii_uppercase
_UPPER = frozenset({"gb", "uv", "bpa", "gmo", "xl", "xxl"})


@dataclass(slots=True, frozen=True)
class RawCatalogue:
    """The content of the original's three data files."""

    products: list[dict[str, Any]]  # items_shuffle.json
    attributes: dict[str, dict[str, Any]]  # items_ins_v2.json, by ASIN
    human: dict[str, list[dict[str, Any]]]  # items_human_ins.json, by ASIN


@dataclass(slots=True, frozen=True)
class _Type:
    """A product type with the values that its products are drawn from."""

    query: str
    section: str
    category: str
    path: str  # of categories
    low: int  # lowest price in cents
    high: int  # highest price in cents
    brands: tuple[str, ...]
    attributes: dict[str, Kind]  # attribute -> its part of speech
    options: tuple[tuple[str, tuple[str, ...]], ...]  # (group name, values)


@dataclass(slots=True, frozen=True)
class _Draft:
    """A product before its texts are written."""

    kind: _Type
    attributes: tuple[str, ...]  # sorted
    options: dict[str, tuple[str, ...]]  # group name -> values
    record: dict[str, Any] = field(default_factory=dict)  # filled by ``_write``


def generate_catalogue(products: int = 1200, seed: int = 0) -> RawCatalogue:
    """Make a catalogue of ``products`` products.

    Catalogues of different size or seed share no product, only the words of the tables. Raises ConfigError
    for fewer than 1 product.
    """
    if products < 1:
        raise ConfigError(f"WebShop: products={products} makes an empty catalogue; use 1 or more.")
    draws = Draws(f"webshop-catalogue-1/{products}/{seed}")
    kinds = draws.shuffled(_types())
    seen: set[_Key] = set()
    drafts = draws.shuffled([_draft(kinds[i % len(kinds)], draws, seen) for i in range(products)])
    titles: set[str] = set()
    asins: set[str] = set()
    for draft in drafts:
        _write(draft, draws, titles, asins)
    holders = Counter(
        (draft.kind.section, part) for draft in drafts for part in _parts(draft.attributes, _LONGEST)
    )
    catalogue = RawCatalogue([draft.record for draft in drafts], {}, {})
    for position, draft in enumerate(drafts):
        asin = draft.record["asin"]
        catalogue.attributes[asin] = _annotation(draft, draws, holders, position)
        if position % 10 == 4:
            catalogue.human[asin] = [
                _human(draft, draws, holders) for _ in range(2 if draws.chance(0.2) else 1)
            ]
    return catalogue


def vocabulary() -> tuple[str, ...]:
    """Every word of the product types, attributes, option names and option values, lower case, sorted."""
    phrases = [kind.query for kind in _types()]
    phrases += [attribute for kind in _types() for attribute in kind.attributes]
    for group in catalogue_words().options.values():
        phrases += [group.name, *group.values]
    return tuple(sorted({word for phrase in phrases for word in phrase.lower().split()}))


# The tables


@cache
def _types() -> tuple[_Type, ...]:
    words, types = catalogue_words(), []
    for number, department in enumerate(words.departments):
        # Eight brands a department; neighbours have four of them in common.
        brands = tuple(words.brands[(4 * number + i) % len(words.brands)] for i in range(8))
        for section in department.sections:
            attributes: dict[str, Kind] = {}
            for table in (department.attributes, section.attributes):
                for kind, names in table.items():
                    attributes.update(dict.fromkeys(names, kind))
            groups = [words.options[key] for key in section.options]
            types += [
                _Type(
                    query=row.query,
                    section=section.name,
                    category=department.category,
                    path=f"{department.name} › {section.name} › {row.leaf}",
                    low=100 * row.price[0],
                    high=100 * row.price[1],
                    brands=brands,
                    attributes=attributes,
                    options=tuple((group.name, group.values) for group in groups),
                )
                for row in section.types
            ]
    return tuple(types)


# One product

_Key = tuple[str, tuple[str, ...]]  # query or section, and sorted attributes


def _draft(kind: _Type, draws: Draws, seen: set[_Key]) -> _Draft:
    """Draw attributes (a new set within the type, if possible) and options."""
    for _ in range(_MAX_DRAWS):
        attributes = tuple(sorted(draws.sample(kind.attributes, draws.pick(_COUNTS))))
        if (kind.query, attributes) not in seen:
            break
    seen.add((kind.query, attributes))
    share = draws.below(1000) / 1000
    groups = next(count for bound, count in _GROUPS if share < bound)
    chosen = sorted(draws.sample(range(len(kind.options)), min(groups, len(kind.options))))
    options = {}
    for name, values in (kind.options[i] for i in chosen):
        count = draws.between(2, min(6 if groups == 1 else 5, len(values)))
        # In the order of the table, so that sizes are listed from small to large.
        options[name] = tuple(values[i] for i in sorted(draws.sample(range(len(values)), count)))
    return _Draft(kind, attributes, options)


def _write(draft: _Draft, draws: Draws, titles: set[str], asins: set[str]) -> None:
    """Fill the record, in the schema of the original."""
    kind, record, words = draft.kind, draft.record, catalogue_words()
    order = draws.shuffled(draft.attributes)
    visible = order[: (len(order) + draws.below(2)) // 2]
    hidden = order[len(visible) :]
    while True:
        brand, series, number = draws.pick(kind.brands), draws.pick(words.series), draws.between(100, 999)
        model = draws.pick((f"{series} {number}", f"{series[:2].upper()}{number}", series))
        title = _title(kind, visible, brand, model, draws)
        if title not in titles:
            break
    titles.add(title)
    while True:
        asin = "G" + "".join(draws.pick(_ASIN) for _ in range(9))
        if asin not in asins:
            break
    asins.add(asin)

    facts = {"brand": brand, "series": series, "query": kind.query, "days": str(draws.between(12, 90))}
    bullets, sentences = _texts(kind, visible, hidden, facts, draws)
    record.update(
        name=title,
        full_description=" ".join(sentences),
        pricing=_pricing(kind, draws),
        images=[f"{asin}.jpg"],
        product_category=kind.path,
        average_rating=draws.between(31, 50) / 10 if draws.chance(0.6) else "",
        small_description=draws.shuffled(bullets),
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
        page=draws.between(1, 400),
        model=model,
    )


def _texts(
    kind: _Type, visible: Sequence[str], hidden: Sequence[str], facts: dict[str, str], draws: Draws
) -> tuple[list[str], list[str]]:
    """(bullets, sentences of the description). ``hidden``: the attributes that the title does not name."""
    in_bullets = [attribute for attribute in hidden if draws.chance(0.65)]
    in_description = [attribute for attribute in hidden if attribute not in in_bullets]
    fillers = draws.sample(catalogue_words().fillers, 5)
    bullets = [_line(kind, attribute, draws) for attribute in in_bullets]
    bullets += [_line(kind, attribute, draws) for attribute in visible if draws.chance(0.4)]
    bullets += [line.format(**facts) for line in fillers[: draws.between(1, 3)]]
    sentences = [draws.pick(catalogue_words().intros).format(**facts)]
    sentences += [_line(kind, attribute, draws) for attribute in in_description]
    sentences += [line.format(**facts) for line in fillers[3 : 3 + draws.below(3)]]
    if not in_description and draws.chance(0.1):
        sentences = []
    return bullets, sentences


def _title(kind: _Type, attributes: Sequence[str], brand: str, model: str, draws: Draws) -> str:
    lead, tail = _around(kind, attributes, " and ")
    return draws.pick(catalogue_words().titles).format(
        brand=brand,
        model=model,
        type=_capital(kind.query),
        adjectives=_capital(lead) + " " * bool(lead),
        tail=_capital(tail, leave=("with", "for", "and")),
        listed=", ".join(_capital(attribute) for attribute in attributes),
    )


def _around(kind: _Type, attributes: Sequence[str], glue: str) -> tuple[str, str]:
    """The text before the type (adjectives) and after it (`` with <nouns> for <purposes>``)."""
    parts: dict[Kind, list[str]] = {"adjective": [], "noun": [], "purpose": []}
    for attribute in attributes:
        parts[kind.attributes[attribute]].append(attribute)
    tail = ""
    if parts["noun"]:
        tail += f" with {glue.join(parts['noun'])}"
    if parts["purpose"]:
        tail += f" for {glue.join(parts['purpose'])}"
    return ", ".join(parts["adjective"]), tail


def _line(kind: _Type, attribute: str, draws: Draws) -> str:
    line = draws.pick(catalogue_words().lines[kind.attributes[attribute]]).format(attribute=attribute)
    return line[0].upper() + line[1:]


def _capital(text: str, leave: Sequence[str] = ()) -> str:
    """Each word with a capital, abbreviations in capitals. Lower-casing gives the text back."""
    return " ".join(
        word if word in leave else word.upper() if word in _UPPER else word[:1].upper() + word[1:]
        for word in text.split(" ")
    )


def _pricing(kind: _Type, draws: Draws) -> str:
    """``$12.99``, ``$12.99$18.5`` (a range), or nothing. Each doubling of the price is equally likely."""
    edges = [kind.low]
    while 2 * edges[-1] < kind.high:
        edges.append(2 * edges[-1])
    edges.append(kind.high)
    step = draws.below(len(edges) - 1)
    ending = draws.pick(_ENDINGS)
    low = draws.between(edges[step], edges[step + 1] - 100) // 100 * 100 + ending
    kind_of_price = draws.below(100)
    if kind_of_price < 2:
        return ""
    if kind_of_price < 11:
        high = low * draws.between(115, 160) // 10_000 * 100 + ending
        if low < high <= 30_000:
            return f"${low / 100}${high / 100}"
    return f"${low / 100}"


# Instructions


def _parts(attributes: tuple[str, ...], longest: int) -> Iterator[tuple[str, ...]]:
    """The non-empty parts of a product's attributes, short ones first."""
    for size in range(1, min(longest, len(attributes)) + 1):
        yield from combinations(attributes, size)


def _instruction_attributes(draft: _Draft, draws: Draws, holders: Counter[_Key], longest: int) -> list[str]:
    """Attributes for an instruction, which few products of the section have together, where possible."""
    section = draft.kind.section
    parts = list(_parts(draft.attributes, longest))
    few = [part for part in parts if holders[section, part] <= FEW]
    if not few:
        fewest = min(holders[section, part] for part in parts)
        few = [part for part in parts if holders[section, part] == fewest]
    sizes = sorted({len(part) for part in few})
    size = draws.pick(sizes)
    return draws.shuffled(draws.pick([part for part in few if len(part) == size]))


def _annotation(draft: _Draft, draws: Draws, holders: Counter[_Key], position: int) -> dict[str, Any]:
    """The record of items_ins_v2.json. As there, some have no instruction, and some have nothing."""
    if position % 100 == 99:
        return {"attributes": []}
    attributes = draws.shuffled(draft.attributes)
    if position % 100 == 49:
        return {"attributes": attributes}
    instruction_attributes = _instruction_attributes(draft, draws, holders, _LONGEST)
    lead, tail = _around(draft.kind, instruction_attributes, ", ")
    return {
        "attributes": attributes,
        "instruction": f"Find me {lead}{' ' * bool(lead)}{draft.kind.query}{tail}",
        "instruction_attributes": instruction_attributes,
    }


def _human(draft: _Draft, draws: Draws, holders: Counter[_Key]) -> dict[str, Any]:
    """One record of items_human_ins.json."""
    instruction_attributes = _instruction_attributes(draft, draws, holders, 2)
    chosen = {name: draws.pick(values) for name, values in draft.options.items()}
    named = [name for name in chosen if draws.chance(0.8)] or list(chosen)[:1]
    lead, tail = _around(draft.kind, instruction_attributes, " and ")
    spoken = [catalogue_words().spoken_options[name].format(chosen[name]) for name in named]
    text = draws.pick(catalogue_words().human).format(
        wish=f"{lead}{' ' * bool(lead)}{draft.kind.query}{tail}",
        options="".join(f", {phrase}" for phrase in spoken),
    )
    return {
        "asin": draft.record["asin"],
        "instruction": text,
        "attributes": list(draft.attributes),
        "options": [f"{name}: {value}" for name, value in chosen.items()] or [""],
        "instruction_attributes": instruction_attributes,
        "instruction_options": [chosen[name] for name in named],
    }
