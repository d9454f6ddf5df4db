"""The reward of a purchase, and its parts, as the original computes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from rapidfuzz import fuzz, utils

from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.goals import Goal
from repro_rl.files import read_yaml

MATCH = 85  # a fuzzy score above this is a match
_LATIN_1 = dict.fromkeys(range(128, 256))  # the original's fuzzy library drops these before it compares


@dataclass(slots=True, frozen=True)
class Parts:
    """The reward of a purchase and its parts."""

    reward: float  # 0..1, the score of the purchase
    base: float  # before the type factor
    type_factor: float  # 0, .1, .5 or 1
    attributes: int  # goal attributes matched
    options: int  # goal options matched
    price: bool  # not above the cap
    query_match: bool
    category_match: bool
    title_score: float


@cache
def _colors() -> tuple[str, ...]:
    return read_yaml(Path(__file__).with_name("colors.yaml"), tuple[str, ...])


@lru_cache(maxsize=65_536)
def normal_color(value: str) -> str:
    """The first colour word that occurs in ``value``, else ``value`` itself."""
    for color in _colors():
        if color in value:
            return color
    return value


@lru_cache(maxsize=65_536)
def _plain(text: str) -> str:
    return utils.default_process(text.translate(_LATIN_1))


@lru_cache(maxsize=65_536)
def similar(one: str, other: str) -> bool:
    """Token-set similarity above 85 after rounding, case and punctuation aside."""
    # Both texts empty after cleaning score 0 in the original's library.
    return round(fuzz.token_set_ratio(_plain(one), _plain(other))) > MATCH


@lru_cache(maxsize=16_384)
def comparable_options(goal: Goal) -> tuple[str, ...]:
    """The goal's options as the original compares them.

    Human goals list values, reduced to colours. Synthetic goals hold (group, value) pairs. A pair that has a
    colour word as group or value is reduced to it. Any other is compared in its printed form, so that a
    purchased value equal to the *name* of the group matches too.
    """
    if goal.named_options is None:
        return tuple(normal_color(value) for value in goal.options)
    colors = _colors()
    return tuple(next((color for color in colors if color in pair), str(pair)) for pair in goal.named_options)


def attributes_matched(product: Product, attributes: Sequence[str]) -> int:
    """How many of ``attributes`` the product has: in its list, or in its title, bullets or description."""
    count = 0
    texts: tuple[str, str, str] | None = None
    for attribute in attributes:
        if any(similar(own, attribute) for own in product.attributes):
            count += 1
            continue
        if texts is None:
            texts = (product.title.lower(), " ".join(product.bullets).lower(), product.description.lower())
        count += any(attribute in text for text in texts)
    return count


def options_matched(goal: Goal, chosen: Iterable[str]) -> int:
    """How many of the goal's options some chosen value matches."""
    values = [normal_color(value) for value in chosen]
    return sum(any(similar(value, option) for value in values) for option in comparable_options(goal))


def _categories(path: str) -> set[str]:
    return {part.strip() for part in path.split("›")}


def type_factor(
    product: Product, goal: Goal, product_nouns: Sequence[str], goal_nouns: Sequence[str]
) -> tuple[float, bool, bool, float]:
    """(factor, same query, two shared categories, title score): does the product have the goal's type?

    ``*_nouns``: lower-case nouns of the two titles, duplicates included; the title score is the share of
    the goal's nouns that the product's title has.
    """
    query_match = product.query == goal.query
    category_match = len(_categories(product.product_category) & _categories(goal.product_category)) >= 2
    shared = len(set(product_nouns) & set(goal_nouns))
    title_score = shared / len(goal_nouns) if goal_nouns else 0.2
    factor = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if title_score < 0.1:
        factor = 0.1
    if title_score == 0.0:
        factor = 0.0
    return factor, query_match, category_match, title_score


@dataclass(slots=True)
class Appraisal:
    """One product compared with one goal: all that does not depend on the chosen options."""

    goal: Goal
    attributes: int  # goal attributes matched
    price: bool  # not above the cap
    type: tuple[float, bool, bool, float]  # the result of ``type_factor``

    def parts(self, options: Mapping[str, str]) -> Parts:
        """The reward of buying with ``options`` (group -> chosen value)."""
        goal = self.goal
        matched = options_matched(goal, options.values()) if options and goal.options else 0
        base = (self.attributes + matched + self.price) / (len(goal.attributes) + len(goal.options) + 1)
        factor, query_match, category_match, title_score = self.type
        return Parts(
            reward=base * factor,
            base=base,
            type_factor=factor,
            attributes=self.attributes,
            options=matched,
            price=self.price,
            query_match=query_match,
            category_match=category_match,
            title_score=title_score,
        )


def appraise(
    product: Product,
    price: float,
    goal: Goal,
    product_nouns: Sequence[str],
    goal_nouns: Sequence[str],
) -> Appraisal:
    """Compare ``product`` at ``price`` dollars with ``goal``."""
    return Appraisal(
        goal=goal,
        attributes=attributes_matched(product, goal.attributes),
        price=price <= goal.price_upper,
        type=type_factor(product, goal, product_nouns, goal_nouns),
    )
