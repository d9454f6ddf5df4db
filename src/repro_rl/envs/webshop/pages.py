"""The texts of a page and what can be clicked on it, without HTML.

The original renders a template and parses the HTML. Two effects of that are reproduced here: a text of white
space alone becomes one character, and a line break alone is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from repro_rl.envs.webshop.actions import click, clickable
from repro_rl.envs.webshop.data.products import Product

JOIN = " [SEP] "
WINDOW = 10  # products on a page
BACK, PREVIOUS, NEXT, BUY, SEARCH = "Back to Search", "< Prev", "Next >", "Buy Now", "Search"
SUB_PAGES = ("description", "features", "reviews", "attributes")
BUTTONS = frozenset(name.lower() for name in (BACK, PREVIOUS, NEXT, BUY, SEARCH, *SUB_PAGES))
RATING = "Rating: N.A."
_SPACES = " \n\t\f\r"  # what the HTML parser counts as white space

Node = tuple[str, str]  # (kind: plain, button, option or product; text as the page holds it)


def collapsed(text: str) -> str:
    """``text`` as the HTML parser returns it: white space alone becomes one line break or one space."""
    if not text or text.strip(_SPACES):
        return text
    return "\n" if "\n" in text else " "


def _nodes(*pairs: Node) -> list[Node]:
    """The visible nodes: without empty texts and lone line breaks."""
    nodes = ((kind, collapsed(text)) for kind, text in pairs)
    return [(kind, text) for kind, text in nodes if text and text != "\n"]


def text_of(nodes: Iterable[Node]) -> str:
    """The ``text`` style: stripped texts joined by `` [SEP] ``."""
    return JOIN.join([text.strip() for _, text in nodes])


def _lower(nodes: Iterable[Node], *kinds: str) -> list[str]:
    return [text.lower() for kind, text in nodes if kind in kinds]


@dataclass(frozen=True)
class Item:
    """The page contents of one product, each computed once."""

    product: Product
    show_attributes: bool

    @cached_property
    def row(self) -> list[Node]:
        """Its entry on a results page."""
        product = self.product
        return _nodes(("product", product.asin), ("plain", product.title), ("plain", product.price_tag))

    @cached_property
    def row_text(self) -> str:
        return JOIN + text_of(self.row) if self.row else ""

    @cached_property
    def page(self) -> list[Node]:
        """The item page below the instruction and "Back to Search"."""
        product = self.product
        nodes = [("button", PREVIOUS)]
        for name, values in product.options.items():
            nodes += [("plain", name), *(("option", value) for value in values)]
        nodes += [("plain", product.title), ("plain", f"Price: {product.price_tag}"), ("plain", RATING)]
        nodes += [("button", name.title()) for name in SUB_PAGES[: 3 + self.show_attributes]]
        return _nodes(*nodes, ("button", BUY))

    @cached_property
    def page_text(self) -> str:
        return JOIN + text_of(self.page)

    @cached_property
    def group_of(self) -> dict[str, str]:
        """Option value -> its group; a value that occurs in two groups belongs to the last."""
        return {value: name for name, values in self.product.options.items() for value in values}

    @cached_property
    def clickables(self) -> tuple[str, ...]:
        names = [BACK.lower(), *_lower(self.page, "button"), *self.group_of]
        return tuple(dict.fromkeys(names))

    @cached_property
    def admissible(self) -> tuple[str, ...]:
        return tuple(click(name) for name in self.clickables if clickable(name))

    def sub_page(self, name: str) -> list[Node]:
        """A sub-page below "Back to Search" and "< Prev"."""
        product = self.product
        if name == "description":
            return _nodes(("plain", product.description))
        if name == "features":
            return _nodes(*(("plain", f" {bullet}") for bullet in product.bullets))
        if name == "attributes":
            return _nodes(
                *(("plain", f" {attribute}") for attribute in product.attributes),
                ("plain", product.category),
                ("plain", product.query),
                ("plain", product.product_category),
            )
        return []  # reviews: the data sets have none


SUB_CLICKABLES = (BACK.lower(), PREVIOUS.lower())
SUB_ADMISSIBLE = tuple(map(click, SUB_CLICKABLES))


def result_buttons(page: int) -> list[str]:
    """The buttons of a results page, in page order. ``Next >`` is always there, also past the end."""
    return [BACK, PREVIOUS, NEXT] if page > 1 else [BACK, NEXT]


def start_nodes(instruction: str) -> list[Node]:
    """The first page: a search bar."""
    return _nodes(
        ("plain", "WebShop"), ("plain", "Instruction: "), ("plain", instruction), ("button", SEARCH)
    )


def _head(instruction: str) -> list[Node]:
    return _nodes(("plain", "Instruction:"), ("plain", instruction), ("button", BACK))


def results_nodes(instruction: str, page: int, total: int, items: Sequence[Item]) -> list[Node]:
    """Results page ``page`` (from 1): buttons, then the rows of its ``items``; ``total``: results in all."""
    nodes = [*_head(instruction), ("plain", f"Page {page} (Total results: {total})")]
    nodes += [("button", name) for name in result_buttons(page)[1:]]
    return nodes + [node for item in items for node in item.row]


def item_nodes(instruction: str, item: Item) -> list[Node]:
    """The page of a product, from the instruction to the "Buy Now" button."""
    return _head(instruction) + item.page


def sub_nodes(instruction: str, item: Item, name: str) -> list[Node]:
    """The page behind the button ``name`` of a product's page, such as "description"."""
    return [*_head(instruction), ("button", PREVIOUS), *item.sub_page(name)]


def done_nodes(asin: str, options: Mapping[str, str], reward: float) -> list[Node]:
    """The last page: a dump whose unused fields are empty or None, as in the original."""
    chosen = json.dumps(dict(options), sort_keys=True)
    for symbol in "<>&'":  # the template engine keeps these out of scripts
        chosen = chosen.replace(symbol, f"\\u{ord(symbol):04x}")
    texts = ["Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)"]
    texts += ["Purchased", "asin", asin, "options", chosen, "attrs", "None", "category", "None"]
    texts += ["query", "None", "product category", "None", "Target", "asin", "options", "attrs"]
    texts += ["price upper", "instuction text", "category", "product category", "query", "Goal ", "None"]
    texts += ["Reward", "Your score (min 0.0, max 1.0)", str(reward), "Reward Details ", "None"]
    return [("plain", text) for text in texts]


def purchase_text(asin: str, options: Mapping[str, str], reward: float) -> str:
    """What ``done_nodes`` says, for people: without the fields that hold nothing."""
    chosen = "".join(f"\n{name}: {value}" for name, value in sorted(options.items()))
    return (
        f"Thank you for shopping with us!\nPurchased: {asin}{chosen}\nYour score (min 0.0, max 1.0): {reward}"
    )


def results_text(instruction: str, page: int, total: int, items: Sequence[Item]) -> str:
    """``text_of(results_nodes(...))`` from cached pieces."""
    head = text_of(_head(instruction))
    buttons = JOIN.join(result_buttons(page)[1:])
    rows = "".join([item.row_text for item in items])
    return f"{head}{JOIN}Page {page} (Total results: {total}){JOIN}{buttons}{rows}"


def item_text(instruction: str, item: Item) -> str:
    """``text_of(item_nodes(...))`` from cached pieces."""
    return text_of(_head(instruction)) + item.page_text


def rich_text(nodes: Iterable[Node], address: str, visited: Iterable[str]) -> str:
    """The ``text_rich`` style: one text a line, with marks for what can be or has been clicked.

    ``address``: the page's URL from the query on; an option counts as clicked when it occurs there in double
    quotes. ``visited``: ASINs opened since the last "Back to Search", upper case.
    """
    visited = set(visited)
    lines, notes = [], []
    for kind, text in nodes:
        if kind == "button":
            line = f"[button] {text} [button_]"
        elif kind == "option" and f'"{text}"' in address:
            line = f"  [clicked button] {text} [clicked button_]"
            notes.append(f"You have clicked {text}.\n")
        elif kind == "option":
            line = f"  [button] {text} [button_]"
        elif kind == "product":
            word = "clicked button" if text in visited else "button"
            line = f"\n[{word}] {text} [{word}_]"
        else:
            line = text
        lines.append(line + "\n")
    return "".join(notes[::-1] + lines)


def compact_text(text: str, instruction: str) -> str:
    """The RL papers' form of a ``text`` page: what follows the instruction, each piece in single quotes."""
    head = f"Instruction:{JOIN}{collapsed(instruction).strip()}{JOIN}"
    start = text.find(head)
    if start < 0:
        return text
    return JOIN.join([f"'{piece}'" for piece in text[start + len(head) :].split(JOIN)])
