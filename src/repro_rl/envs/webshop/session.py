"""The state of one shopping session and the effect of every action. No texts, no reward."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from repro_rl.envs.webshop.actions import SEARCH_HINT, click, clickable, parse
from repro_rl.envs.webshop.pages import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    SEARCH,
    SUB_ADMISSIBLE,
    SUB_CLICKABLES,
    SUB_PAGES,
    WINDOW,
    Item,
    result_buttons,
)

_PATHS = {"results": "search_results", "item": "item_page", "sub": "item_sub_page", "done": "done"}


@dataclass(slots=True)
class Session:
    """``search``: query -> product numbers, best first; ``item``: number -> its page contents."""

    search: Callable[[str], Sequence[int]]
    item: Callable[[int], Item]
    kind: str = "search"  # search, results, item, sub or done
    query: str = ""
    page: int = 0
    results: Sequence[int] = ()  # of the whole search
    product: int = -1  # the open product, -1 none
    sub_page: str = ""
    options: dict[str, str] = field(default_factory=dict)
    pages_read: dict[int, set[str]] = field(default_factory=dict)  # product -> sub-pages opened so far
    visited: set[str] = field(default_factory=set)  # ASINs opened since the last "Back to Search"

    def act(self, action: str) -> bool:
        """Execute ``action``; False when it is not understood or not possible here (nothing changes)."""
        verb, argument = parse(action)
        if verb == "search":
            self._search(argument, 1)
            return True
        if verb != "click" or argument == SEARCH.lower() or argument not in self.clickables():
            return False
        self._click(argument)
        return True

    def page_products(self) -> Sequence[int]:
        """Product numbers on the results page."""
        return self.results[(self.page - 1) * WINDOW : self.page * WINDOW]

    def clickables(self) -> Sequence[str]:
        """Lower-case names, as the original lists them: buttons, then ASINs, then option values."""
        if self.kind == "search":
            return (SEARCH.lower(),)
        if self.kind == "results":
            names = [*result_buttons(self.page), *(self.item(n).product.asin for n in self.page_products())]
            return list(dict.fromkeys([name.lower() for name in names]))
        if self.kind == "item":
            return self.item(self.product).clickables
        return SUB_CLICKABLES if self.kind == "sub" else ()

    def admissible(self) -> list[str]:
        """Actions in the form that ``act`` accepts; the search hint where the page has a search bar."""
        if self.kind == "search":
            return [SEARCH_HINT]
        if self.kind == "item":
            return list(self.item(self.product).admissible)
        if self.kind == "sub":
            return list(SUB_ADMISSIBLE)
        return [click(name) for name in self.clickables() if clickable(name)]

    def address(self) -> str:
        """The part of the page's URL that the original inspects: path, ASIN, query, page, options."""
        if self.kind == "search":
            return ""
        query = f"{'+'.join(self.query.split(' '))}/{self.page}"
        if self.kind == "results":
            return f"{_PATHS[self.kind]}/{query}"
        asin = self.item(self.product).product.asin.upper()
        options = json.dumps(self.options)
        if self.kind == "sub":
            options = f"{self.sub_page.title()}/{self.options}"
        return f"{_PATHS[self.kind]}/{asin}/{query}/{options}"

    def _path(self) -> str:
        """As in the original: the first path name that occurs anywhere in the URL, query included."""
        address = self.address()
        return next(
            (name for name in ("search_results", "item_page", "item_sub_page") if name in address), ""
        )

    def _search(self, query: str, page: int) -> None:
        self.kind, self.query, self.page = "results", query, page
        self.results = self.search(query)
        self.product, self.sub_page, self.options = -1, "", {}

    def _click(self, name: str) -> None:
        if name == BUY.lower() and self.product >= 0:  # it may be an ASIN on a results page
            self.kind = "done"
        elif name == BACK.lower():
            self.kind, self.query, self.page, self.results = "search", "", 0, ()
            self.product, self.sub_page, self.options, self.visited = -1, "", {}, set()
        elif name == NEXT.lower() and self._path() == "search_results":
            self._search(self.query, self.page + 1)
        elif name == PREVIOUS.lower() and self._path() == "search_results":
            self._search(self.query, self.page - 1)
        elif name == PREVIOUS.lower() and self._path() == "item_page":
            self._search(self.query, self.page)
        elif name in SUB_PAGES and self.product >= 0:
            self.kind, self.sub_page = "sub", name
            self.pages_read.setdefault(self.product, set()).add(name)
        else:
            self._open(name)

    def _open(self, name: str) -> None:
        """Open a product of the results page, or choose an option on the item page."""
        if self.kind == "results":
            asins = {self.item(number).product.asin.lower(): number for number in self.page_products()}
            self.product = asins[name]
            self.visited.add(name.upper())
        elif self.kind == "item" and (group := self.item(self.product).group_of.get(name)) is not None:
            self.options[group.lower()] = name
        self.kind, self.sub_page = "item", ""
