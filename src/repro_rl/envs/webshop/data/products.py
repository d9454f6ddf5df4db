"""The product record, and the text that the search engine indexes."""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_PRICE = 100.0  # the original's price of a product without one
NO_ATTRIBUTE = "DUMMY_ATTR"  # the original's attribute of a product without any


@dataclass(slots=True, frozen=True)
class HumanInstruction:
    """One human-written instruction for a product."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Product:
    """A product after the original's cleaning: options lower-cased, prices parsed, lists as tuples."""

    asin: str  # Amazon's number of the product, its key
    title: str
    description: str
    bullets: tuple[str, ...]  # the list of features on its page
    category: str  # coarse, such as "garden"
    query: str  # usual name of this kind of product, lower case
    product_category: str  # path such as "Home › Furniture › Tables"
    price_tag: str  # as the pages print it, such as "$9.99 to $11.99"
    prices: tuple[float, ...]  # none (unknown), one, or the two ends of a range
    options: dict[str, tuple[str, ...]]  # group name -> values, both lower case
    attributes: tuple[str, ...]  # such as "non slip", which rewards look for
    instruction: str | None = None  # synthetic instruction, None when the data have none
    instruction_attributes: tuple[str, ...] = ()  # those that it asks for
    human: tuple[HumanInstruction, ...] = field(default=())  # instructions that people wrote


def document_text(product: Product) -> str:
    """The text that is indexed, as in the original: title, description, first bullet, options; lower case."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    first = product.bullets[0] if product.bullets else ""
    return " ".join([product.title, product.description, first, options]).lower()
