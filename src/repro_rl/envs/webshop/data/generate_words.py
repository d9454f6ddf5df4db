"""Words of the generated WebShop catalogue, from ``generate_words.yaml``; ``generate.py`` combines them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from repro_rl.files import TABLE, read_yaml

Kind = Literal["adjective", "noun", "purpose"]
Attributes = dict[Kind, tuple[str, ...]]


@dataclass(slots=True, frozen=True)
class ProductType:
    """A kind of product as shoppers call it."""

    __pydantic_config__ = TABLE
    query: str
    leaf: str  # the rest of its category path
    price: tuple[int, int]  # usual prices in dollars: lowest, highest


@dataclass(slots=True, frozen=True)
class Section:
    """Product types of one department that share attributes and option groups."""

    __pydantic_config__ = TABLE
    name: str
    options: tuple[str, ...]  # keys of CatalogueWords.options
    attributes: Attributes
    types: tuple[ProductType, ...]


@dataclass(slots=True, frozen=True)
class Department:
    """A coarse category."""

    __pydantic_config__ = TABLE
    category: str
    name: str
    attributes: Attributes  # fit each of its sections
    sections: tuple[Section, ...]


@dataclass(slots=True, frozen=True)
class OptionGroup:
    """An option that products may have."""

    __pydantic_config__ = TABLE
    name: str  # as the pages show it
    values: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class CatalogueWords:
    """The whole file. Texts hold fields in braces that ``generate.py`` fills."""

    __pydantic_config__ = TABLE
    departments: tuple[Department, ...]
    options: dict[str, OptionGroup]
    spoken_options: dict[str, str]  # name of an option group -> phrase for its value
    brands: tuple[str, ...]
    series: tuple[str, ...]
    titles: tuple[str, ...]
    lines: Attributes  # sentences about one attribute, by its kind
    fillers: tuple[str, ...]  # sentences without any attribute
    intros: tuple[str, ...]
    human: tuple[str, ...]  # human instructions


@cache
def catalogue_words() -> CatalogueWords:
    """Read once. Raises DataError naming file and key."""
    return read_yaml(Path(__file__).with_suffix(".yaml"), CatalogueWords)
