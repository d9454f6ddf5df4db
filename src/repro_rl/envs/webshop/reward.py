"""The reward of a purchase, and its parts, as the original computes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz, utils

from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.goals import Goal

MATCH = 85  # a fuzzy score above this is a match
# Colour words in the original's order: the first that occurs in a value stands for the whole value.
# fmt: off
COLORS = (
    "alabaster", "apricot", "aqua", "ash", "asphalt", "azure", "banana", "beige", "black", "blue", "blush",
    "bordeaux", "bronze", "brown", "burgundy", "camel", "camo", "caramel", "champagne", "charcoal",
    "cheetah", "chestnut", "chocolate", "christmas", "coffee", "cognac", "copper", "coral",
    "cranberry", "cream", "crystal", "dark", "denim", "eggplant", "elephant", "espresso", "fuchsia",
    "gold", "granite", "grape", "graphite", "grass", "gray", "green", "grey", "heather", "indigo", "ivory",
    "ivy", "khaki", "lavender", "lemon", "leopard", "light", "lilac", "lime", "magenta", "maroon", "mauve",
    "merlot", "midnight", "mint", "mocha", "multicolor", "mushroom", "mustard", "natural", "navy", "nude",
    "olive", "orange", "peach", "pewter", "pink", "plum", "purple", "rainbow", "red", "rose", "royal", "rust",
    "sand", "sapphire", "seashell", "silver", "skull", "slate", "steel", "stone", "stonewash",
    "sunflower", "tan", "taupe", "teal", "tiger", "turquoise", "violet", "walnut", "wheat", "white", "wine",
    "yellow",
)
# fmt: on
_LATIN_1 = dict.fromkeys(range(128, 256))  # the fuzzy library drops these before it compares


@dataclass(slots=True, frozen=True)
class Parts:
    """What a purchase earned, part by part."""

    reward: float  # 0..1, the score of the purchase
    base: float  # before the type factor
    type_factor: float  # 0, .1, .5 or 1
    attributes: int  # goal attributes matched
    options: int  # goal options matched
    price: bool  # not above the cap
    query_match: bool
    category_match: bool
    title_score: float


def normal_color(value: str) -> str:
    """The first colour word that occurs in ``value``, else ``value`` itself."""
    for color in COLORS:
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
def wanted_options(goal: Goal) -> tuple[str, ...]:
    """The goal's options as the original compares them.

    Human goals list values, reduced to colours. Synthetic goals hold (group, value) pairs: a pair that has a
    colour word as group or value is reduced to it, any other is compared in its printed form, so that a
    purchased value equal to the *name* of the group matches too.
    """
    if goal.named_options is None:
        return tuple(normal_color(value) for value in goal.options)
    return tuple(next((color for color in COLORS if color in pair), str(pair)) for pair in goal.named_options)


def attributes_matched(product: Product, wanted: Sequence[str]) -> int:
    """How many wanted attributes are among the product's, or occur in its title, bullets or description."""
    count = 0
    texts: tuple[str, str, str] | None = None
    for attribute in wanted:
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
    return sum(any(similar(value, wanted) for value in values) for wanted in wanted_options(goal))


def _categories(path: str) -> set[str]:
    return {part.strip() for part in path.split("›")}


def type_factor(
    product: Product, goal: Goal, product_nouns: Sequence[str], goal_nouns: Sequence[str]
) -> tuple[float, bool, bool, float]:
    """(factor, same query, two shared categories, title score): is it the kind of thing that was wanted?

    ``*_nouns``: lower-case nouns of the two titles, duplicates kept; the title score is the share of the
    goal's that the product has.
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
    """One product against one goal: what does not depend on the chosen options, worked out once."""

    goal: Goal
    attributes: int
    price: bool
    type: tuple[float, bool, bool, float]

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
