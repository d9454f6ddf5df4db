"""The generated WebShop catalogue: schema, shares, determinism, and whether its goals can be met."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.envs.webshop import reward
from repro_rl.envs.webshop.data.generate import RawCatalogue, _types, generate_catalogue, vocabulary
from repro_rl.envs.webshop.data.generate_words import catalogue_words
from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.data.reader import products_from_raw
from repro_rl.envs.webshop.goals import DrawnGoals
from repro_rl.errors import ConfigError

PRODUCT_KEYS = "name,full_description,pricing,images,product_category,average_rating,small_description"
PRODUCT_KEYS += ",customization_options,asin,category,query,page,model"
HUMAN_KEYS = "asin,instruction,attributes,options,instruction_attributes,instruction_options"


@pytest.fixture(scope="module")
def default() -> RawCatalogue:
    return generate_catalogue()


def text_of(product: dict[str, Any]) -> str:
    return "\n".join([product["name"], product["full_description"], *product["small_description"]]).lower()


def options_of(product: dict[str, Any]) -> dict[str, list[str]]:
    groups = product["customization_options"] or {}
    return {name.lower(): [o["value"].lower() for o in values] for name, values in groups.items()}


def prices_of(product: dict[str, Any]) -> list[float]:
    return [float(part) for part in product["pricing"].split("$")[1:]]


def combinations_of(product: dict[str, Any]) -> list[tuple[str, ...]]:
    return list(itertools.product(*options_of(product).values()))


def instruction_goals(catalogue: RawCatalogue) -> int:
    return sum(
        len(combinations_of(product))
        for product in catalogue.products
        if "instruction" in catalogue.attributes[product["asin"]]
    )


def human_goals(catalogue: RawCatalogue) -> int:
    return sum(map(len, catalogue.human.values()))


def check(catalogue: RawCatalogue, count: int) -> None:
    """What holds for every catalogue."""
    products = catalogue.products
    allowed = set(vocabulary())
    pools = {kind.query: kind.attributes for kind in _types()}
    assert len(products) == count
    assert len({product["asin"] for product in products}) == count
    assert len({product["name"] for product in products}) == count
    assert list(catalogue.attributes) == [product["asin"] for product in products]
    for product in products:
        assert ",".join(product) == PRODUCT_KEYS
        asin = product["asin"]
        assert len(asin) == 10
        assert asin.startswith("G")
        assert asin.isalnum()
        assert asin == asin.upper()
        assert 3 <= len(product["product_category"].split(" › ")) <= 4
        assert product["small_description"]
        assert all(line.strip() for line in product["small_description"])
        prices = prices_of(product)
        assert product["pricing"] == "".join(f"${price}" for price in prices)
        assert len(prices) <= 2
        assert prices == sorted(set(prices))
        assert all(5 <= price <= 300.99 for price in prices)
        for name, values in options_of(product).items():
            assert 2 <= len(values) == len(set(values)) <= 6
            assert {word for phrase in (name, *values) for word in phrase.split()} <= allowed
        assert set(product["query"].split()) <= allowed

        note = catalogue.attributes[asin]
        text, own = text_of(product), note["attributes"]
        shown = {attribute for attribute in pools[product["query"]] if attribute in text}
        assert 2 <= len(shown) <= 5
        assert not own or set(own) == shown  # all of them, and no other attribute of the type
        assert any(attribute in product["name"].lower() for attribute in shown)
        assert len(own) == len(set(own))
        if "instruction" in note:
            assert 1 <= len(note["instruction_attributes"]) <= 3
            assert set(note["instruction_attributes"]) <= set(own)
            assert note["instruction"].startswith("Find me ")
            assert product["query"] in note["instruction"]
            assert all(attribute in note["instruction"] for attribute in note["instruction_attributes"])
        else:
            assert "instruction_attributes" not in note
        for human in catalogue.human.get(asin, []):
            assert ",".join(human) == HUMAN_KEYS
            assert human["asin"] == asin
            parts = [product["query"], *human["instruction_attributes"], *human["instruction_options"]]
            assert all(part in human["instruction"] for part in parts)
            assert 1 <= len(human["instruction_attributes"]) <= 2
            assert set(human["instruction_attributes"]) <= shown
            values = {value for group in options_of(product).values() for value in group}
            assert set(human["instruction_options"]) <= values
            assert bool(human["instruction_options"]) == bool(values)
            chosen = dict(option.split(": ") for option in human["options"] if option)
            assert all(chosen[name] in group for name, group in options_of(product).items())
            assert set(human["instruction_options"]) <= set(chosen.values())
    assert set(catalogue.human) <= set(catalogue.attributes)
    whole = json.dumps([products, catalogue.attributes, catalogue.human], ensure_ascii=False)
    rest = whole.replace("›", "")
    assert rest.isascii()
    assert rest.isprintable()
    assert "\\" not in rest.replace('\\"', "")  # JSON would escape control characters
    assert "{" not in "".join(text_of(product) for product in products)  # no unfilled template


def test_default(default: RawCatalogue) -> None:
    check(default, 1200)
    queries = [product["query"] for product in default.products]
    assert {queries.count(query) for query in queries} == {24}
    assert len(set(queries)) == 50
    assert len({product["category"] for product in default.products}) == 12
    assert 5_000 <= instruction_goals(default) <= 9_000


def test_shares(default: RawCatalogue) -> None:
    products, notes = default.products, default.attributes
    with_groups = [len(options_of(product)) for product in products]
    assert 0.60 < sum(map(bool, with_groups)) / 1200 < 0.72
    assert set(with_groups) == {0, 1, 2}
    ends = [len(prices_of(product)) for product in products]
    assert 0.06 < ends.count(2) / 1200 < 0.12
    assert 0.01 < ends.count(0) / 1200 < 0.03
    assert sum("instruction" in note for note in notes.values()) / 1200 >= 0.97
    assert sum(not note["attributes"] for note in notes.values()) == 12
    assert len(default.human) == 120
    own = [(product["name"].lower(), notes[product["asin"]]["attributes"]) for product in products]
    in_title = sum(attribute in title for title, attributes in own for attribute in attributes)
    assert 0.44 < in_title / sum(len(attributes) for _, attributes in own) < 0.56
    cheap = sorted(prices[0] for prices in map(prices_of, products) if prices)
    assert cheap[len(cheap) // 4] < 20 < cheap[len(cheap) // 2] < 50 < cheap[-len(cheap) // 8]
    reading = [  # instructions with an attribute that the title does not show
        any(attribute not in product["name"].lower() for attribute in note["instruction_attributes"])
        for product, note in zip(products, notes.values(), strict=True)
        if "instruction" in note
    ]
    assert sum(reading) / len(reading) > 0.8


def test_few_products_meet_one_instruction(default: RawCatalogue) -> None:
    texts: dict[str, list[str]] = {}
    for product in default.products:
        texts.setdefault(product["query"], []).append(text_of(product))
    counts = [
        sum(all(attribute in text for attribute in note["instruction_attributes"]) for text in texts[query])
        for query, note in (
            (product["query"], default.attributes[product["asin"]]) for product in default.products
        )
        if "instruction" in note
    ]
    assert min(counts) == 1
    assert sum(count <= 3 for count in counts) / len(counts) > 0.9


class InMemory:
    """The products of a raw catalogue, as goals need them."""

    digest = "in memory"

    def __init__(self, raw: RawCatalogue, folder: Path):
        self.folder = folder
        self.products = list(products_from_raw(raw))
        self.numbers = {product.asin: number for number, product in enumerate(self.products)}

    def __len__(self) -> int:
        return len(self.products)

    def product(self, number: int) -> Product:
        return self.products[number]

    def asin(self, number: int) -> str:
        return self.products[number].asin

    def number(self, asin: str) -> int | None:
        return self.numbers.get(asin)


@pytest.mark.parametrize("kind", ["synthetic", "human"])
def test_every_target_earns_the_full_score(kind: str, default: RawCatalogue, tmp_path: Path) -> None:
    shop = InMemory(default, tmp_path)
    goals = DrawnGoals(shop, kind, seed=0)
    assert len(goals) == {"synthetic": instruction_goals, "human": human_goals}[kind](default)
    for goal in map(goals.goal, range(len(goals))):
        target = shop.products[shop.numbers[goal.asin]]
        chosen = dict(goal.named_options or ()) or {
            name: value
            for name, values in target.options.items()
            for value in values
            if value in goal.options
        }
        appraisal = reward.appraise(target, goals.price(target), goal, ["noun"], ["noun"])
        assert appraisal.parts(chosen).reward == 1.0


def test_option_values_are_few_and_unambiguous() -> None:
    groups = catalogue_words().options.values()
    values = {value for group in groups for value in group.values}
    assert len(values) <= 90
    assert all(reward.normal_color(value) == value for value in values)
    assert {group.name for group in groups} == set(catalogue_words().spoken_options)
    for kind in _types():
        assert len({name for name, _ in kind.options}) == len(kind.options) >= 2
        pairs = [(name, value) for name, group in kind.options for value in group]
        for pair, other in itertools.permutations(pairs, 2):
            assert not reward.similar(pair[1], other[1])
            # A synthetic goal's option is compared in this form.
            assert not reward.similar(pair[1], str(other))
        assert all(reward.similar(value, str((name, value))) for name, value in pairs)


def test_attributes_are_unambiguous() -> None:
    for kind in _types():
        assert 8 <= len(kind.attributes) <= 12
        assert all(len(attribute.split()) == 2 for attribute in kind.attributes)
        for one, other in itertools.combinations(kind.attributes, 2):
            assert not reward.similar(one, other)


def test_types() -> None:
    kinds = _types()
    assert len({kind.query for kind in kinds}) == len(kinds) == 50
    assert all(1 <= len(kind.query.split()) <= 2 for kind in kinds)
    assert all(500 <= kind.low < kind.high <= 30_000 for kind in kinds)
    paths = [kind.path for kind in kinds]
    assert any(paths.count(path) > 1 for path in paths)
    sections = [section.name for table in catalogue_words().departments for section in table.sections]
    assert len(set(sections)) == len(sections)
    assert len(set(catalogue_words().brands)) == len(catalogue_words().brands) == 48


def test_vocabulary() -> None:
    found = vocabulary()
    assert list(found) == sorted(set(found))
    assert all(word == word.lower() and word.isascii() and word.split() == [word] for word in found)
    assert {"boots", "resistant", "navy", "flavor", "inch", "dozen"} <= set(found)
    assert len(found) < 600


def test_same_arguments_give_the_same_catalogue() -> None:
    one = generate_catalogue(60, seed=7)
    content = json.dumps([one.products, one.attributes, one.human], ensure_ascii=True, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    assert digest == "bab9b8b2f26edc193d0f050c96b9dac5dadbdfaa925107fd2c5fca3c1ffd3c15"
    assert generate_catalogue(60, seed=7) == one
    assert generate_catalogue(60, seed=8).products != one.products


@pytest.mark.parametrize("products", [0, -3])
def test_too_few_products(products: int) -> None:
    with pytest.raises(ConfigError, match=r"products=-?\d makes an empty catalogue; use 1 or more"):
        generate_catalogue(products)


@settings(max_examples=40, deadline=None)
@given(products=st.integers(1, 400), seed=st.integers(-(2**70), 2**70))
def test_any_size_and_seed(products: int, seed: int) -> None:
    catalogue = generate_catalogue(products, seed)
    check(catalogue, products)
    assert instruction_goals(catalogue) >= 1


def test_many_products() -> None:
    catalogue = generate_catalogue(20_000, seed=1)
    assert len({product["name"] for product in catalogue.products}) == 20_000
    assert len(catalogue.attributes) == 20_000
