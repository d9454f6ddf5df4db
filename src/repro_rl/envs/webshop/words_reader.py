"""The expert that decides by the pages, for the ``words`` style: its observations say how a page compares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from repro_rl.envs.webshop.actions import click
from repro_rl.random_streams import name_key

FULLEST = 2  # searches, those with the most words, of which the seed chooses the first one
PAGES = 3  # results pages that are looked through before another search
_ROW = re.compile(r"r(\d+):k(\d)a(\d)p([01])v([01])")
_ATTRIBUTES = re.compile(r"a(\d)/(\d)")
_GROUP = re.compile(r"g(\d):(none|ok|v\d)")


@dataclass(slots=True)
class _Product:
    """An opened product, by the row that led to it."""

    search: str  # the action that listed it
    page: int
    row: int
    rating: float = 0.0
    options: int = 0  # wanted options still to be chosen


@dataclass(slots=True)
class WordsReader:
    """The expert of one episode: ``read`` every observation, then ask ``next``."""

    max_steps: int
    seed: int = 0
    steps: int = -1  # observations read, but for the first
    wanted_options: int = 0
    opened: list[_Product] = field(default_factory=list)
    searches: int = 0
    _words: list[str] = field(default_factory=list)
    _admissible: Sequence[str] = ()
    _search: str = ""
    _page: int = 1

    def read(self, action: str, observation: str, admissible: Sequence[str]) -> None:
        """Take in an observation: what was done to reach it ("" at first), and what is possible now."""
        self.steps += 1
        self._words, self._admissible = observation.split(), admissible
        kind = self._words[0]
        if kind == "search-page":
            self.wanted_options = int(self._words[2][1:])
        elif kind.startswith("results:"):
            if action.startswith("search["):
                self._search, self.searches = action, self.searches + 1
            self._page = int(kind.partition(":")[2])
        elif kind == "item" and (match := re.fullmatch(r"click\[r(\d+)\]", action)):
            row = int(match[1])
            for product in self.opened:
                if (product.search, product.page, product.row) == (self._search, self._page, row):
                    self.opened.remove(product)
                    self.opened.append(product)
                    return
            self.opened.append(_Product(self._search, self._page, row))

    def next(self) -> str | None:
        """The next action."""
        kind = self._words[0]
        if kind == "search-page":
            return self._find()
        if kind.startswith("results:"):
            return self._pick()
        if kind != "item":
            return click("prev")
        return self._decide()

    def _left(self) -> int:
        return self.max_steps - self.steps

    def _best(self) -> _Product | None:
        # Of equal ones the last: the one that was gone back to.
        return max(reversed(self.opened), key=lambda product: product.rating, default=None)

    def _must_return(self) -> bool:
        best = self._best()
        if best is None:
            return False
        way = 1 + (abs(best.page - self._page) if best.search == self._search else best.page)
        return self._left() < 2 + way + best.options + 1

    def _find(self) -> str | None:
        best = self._best()
        if best is not None and self._must_return():
            return best.search
        searches = [action for action in self._admissible if action.startswith("search[")]
        searches.sort(key=lambda action: -len(action.split()))  # those with the most slots find most
        if not searches:
            return None
        first = name_key("words reader", self.seed) % FULLEST
        return searches[(first + self.searches) % len(searches)]

    def _pick(self) -> str:
        best = self._best()
        if best is not None and self._must_return():
            if best.search != self._search:
                return click("back")
            if best.page != self._page:
                return click("next" if best.page > self._page else "prev")
            return click(f"r{best.row}")
        rows = [tuple(map(int, match.groups())) for match in map(_ROW.fullmatch, self._words[1:]) if match]
        fresh = [(k, a, -row) for row, k, a, affordable, opened in rows if affordable and not opened and k]
        if fresh:
            return click(f"r{-max(fresh)[2]}")
        return click("next" if rows and self._page < PAGES else "back")

    def _decide(self) -> str:
        words = self._words
        product = self.opened[-1] if self.opened else _Product(self._search, self._page, 1)
        seen, total = map(int, next(m for m in map(_ATTRIBUTES.fullmatch, words) if m).groups())
        groups = [m.groups() for m in map(_GROUP.fullmatch, words) if m]
        offered = sum(state != "none" for _, state in groups)
        missing = [(group, state) for group, state in groups if state[0] == "v"]
        affordable, kind = "p1" in words, int(words[1][1:])
        product.options = len(missing)
        product.rating = kind / 2 + seen / max(total, 1) + offered / max(self.wanted_options, 1) + affordable
        complete = affordable and offered >= self.wanted_options
        cost = len(missing) + 1
        if complete and seen < total and self._left() > cost + 2:
            for word, page in (("f0", "features"), ("d0", "description")):
                if word in words and click(page) in self._admissible:
                    return click(page)
        good = complete and seen == total
        if good or (self._left() < cost + 4 and product is self._best()):
            return click(f"g{missing[0][0]}{missing[0][1]}") if missing else click("buy")
        return click("prev")
