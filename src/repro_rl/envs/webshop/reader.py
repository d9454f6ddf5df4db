"""An expert that decides by what the pages say, never by the goal's hidden fields.

It reads the instruction and the texts of the pages, as an agent does. It builds a query from the instruction,
opens promising results, and compares titles, options, prices and sub-pages with what is wanted. It goes back
from products that lack something, and buys the best product it has seen. It goes on from any page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from repro_rl.envs.webshop.actions import click, parse
from repro_rl.envs.webshop.pages import BACK, BUY, JOIN, NEXT, PREVIOUS, RATING
from repro_rl.envs.webshop.reward import normal_color, similar
from repro_rl.envs.webshop.search.analyzer import analyze
from repro_rl.random_streams import name_key

ENOUGH = 0.85  # share of the wanted phrases that a product must show to be bought at once
ROW = 0.05  # a row of the results counts as much less, in share of the wanted words, than the one above
PAGES = 2  # results pages that are looked through before another query
_CAP = re.compile(r",? (?:and )?price lower than ([\d.]+) dollars?")
_GROUP = r"((?:(?! with |, )[^:])+): "
_OPTION = re.compile(rf"(?: with |, and ){_GROUP}(.+?)(?=, and {_GROUP}|$)")
_FIRST_OPTION = re.compile(rf" with {_GROUP}")
_OPENING = re.compile(
    r"^(?:find me|i need|i want|i am looking for|i'm looking for|please find)\s+", re.IGNORECASE
)
_PRICE = re.compile(r"\$([\d,]+(?:\.\d+)?)")
_RESULTS = re.compile(r"Page (\d+) \(Total results: \d+\)")


@dataclass(slots=True, frozen=True)
class Wanted:
    """What an instruction asks for, as its text tells it."""

    phrases: tuple[str, ...]  # kind of product and attributes, in the words of the instruction
    options: tuple[tuple[str, str], ...]  # (group, value) to choose, where they are named so
    cap: float | None  # highest price in dollars
    text: str  # the instruction without its price, lower case

    @classmethod
    def read(cls, instruction: str) -> Wanted:
        """Read an instruction."""
        text = instruction.strip().lower()
        cap = _CAP.search(text)
        text = _CAP.sub("", text).strip(" .")
        options: tuple[tuple[str, str], ...] = ()
        head = text
        if first := _FIRST_OPTION.search(text):
            head = text[: first.start()]
            options = tuple((m[1].strip(), m[2].strip()) for m in _OPTION.finditer(text[first.start() :]))
        head = _OPENING.sub("", head)
        phrases = [part.strip() for part in re.split(r",| with | for | and ", head) if analyze(part)]
        return cls(tuple(phrases), options, float(cap[1]) if cap else None, text)

    def queries(self) -> list[str]:
        """Queries in the words of the instruction, the fullest first."""
        head = " ".join(self.phrases)
        values = " ".join(value for _, value in self.options)
        queries = [f"{head} {values}", head, self.phrases[0] if self.phrases else self.text]
        return list(dict.fromkeys(" ".join(_plain(query).split()) for query in queries if query.strip()))


def _plain(query: str) -> str:
    """``query`` without what the action grammar or the search would take for something else."""
    return re.sub(r"[\[\]<>\n]", " ", query)


def _closest(values: Mapping[str, str], group: str, wanted: str) -> str:
    """The value of ``group`` that is the wanted one, is like it, or has its colour; "" when none is."""
    own = [value for value, name in values.items() if name == group]
    if wanted in own:
        return wanted
    color = normal_color(wanted)  # the wanted text itself where it names no colour
    alike = [value for value in own if color != wanted and normal_color(value) == color]
    alike += [value for value in own if not any(map(str.isdigit, wanted)) and similar(value, wanted)]
    return alike[0] if alike else ""


@dataclass(slots=True)
class Seen:
    """What the pages have shown of one product."""

    title: str
    price: str = ""  # as printed
    values: dict[str, str] = field(default_factory=dict)  # option value -> its group
    texts: dict[str, str] = field(default_factory=dict)  # sub-page -> its text
    query: str = ""  # that listed it
    page: int = 1  # of the results, on which it was listed

    def words(self) -> set[str]:
        """The words of all its texts that were seen."""
        return set(analyze(" ".join([self.title, *self.values, *self.texts.values()])))


class ShopReader:
    """The expert of one episode: ``read`` every page, then ask ``next``."""

    def __init__(self, max_steps: int, seed: int = 0):
        self.max_steps, self.seed = max_steps, seed
        self.steps = -1  # pages read, but for the first
        self.wanted: Wanted | None = None
        self.products: dict[str, Seen] = {}  # title -> what was seen of an opened product
        self.titles: dict[str, str] = {}  # ASIN in lower case -> title, as listed
        self.rejected: set[str] = set()  # titles
        self._kind, self._pieces, self._admissible = "search", [""], frozenset[str]()
        self._rows: list[tuple[str, str, str]] = []  # ASIN, title, price of the results page
        self._page, self._query, self._open, self._chosen = 1, "", "", set[str]()

    # Reading

    def read(self, action: str, text: str, admissible: Iterable[str]) -> None:
        """Take in a page: the ``text`` style's, what was done to reach it ("" at first), what it offers."""
        self.steps += 1
        verb, name = parse(action)
        before = self._pieces
        self._pieces, self._admissible = text.split(JOIN), frozenset(admissible)
        pieces = self._pieces
        if self.wanted is None:
            self.wanted = Wanted.read(pieces[pieces.index("Instruction:") + 1])
        if pieces == before and verb == "click" and self._kind == "item":
            if name in self._product().values:
                self._choose(name)
            return
        if verb == "search":
            self._query = name
        if match := next((m for piece in pieces[:6] if (m := _RESULTS.fullmatch(piece))), None):
            self._kind, self._page, self._chosen = "results", int(match[1]), set()
            self._read_rows()
        elif BUY in pieces:
            if self._kind == "results" and name in self.titles:
                self._open = self.titles[name]
            self._kind = "item"
            self._read_item()
        elif PREVIOUS in pieces and self._open:
            self._kind = "sub"
            if name in ("description", "features", "reviews", "attributes"):
                self._product().texts[name] = " ".join(pieces[pieces.index(PREVIOUS) + 1 :])
        else:
            self._kind, self._chosen = "search", set()

    def _product(self) -> Seen:
        return self.products[self._open]

    def _choose(self, value: str) -> None:
        product = self._product()
        group = product.values[value]
        self._chosen = {other for other in self._chosen if product.values.get(other) != group} | {value}

    def _read_rows(self) -> None:
        start = self._pieces.index(NEXT) + 1
        rest = self._pieces[start:]
        self._rows = []
        index = 0
        while index < len(rest):
            asin = rest[index]
            if click(asin.lower()) in self._admissible:
                title = rest[index + 1] if index + 1 < len(rest) else ""
                price = rest[index + 2] if index + 2 < len(rest) else ""
                self._rows.append((asin.lower(), title, price))
                self.titles[asin.lower()] = title
            index += 1

    def _read_item(self) -> None:
        pieces = self._pieces
        start = pieces.index(PREVIOUS) + 1
        end = pieces.index(RATING, start) - 1  # the price; the title stands before it
        title = pieces[end - 1]
        product = self.products.setdefault(title, Seen(title, query=self._query, page=self._page))
        self._open = title
        product.price = pieces[end]
        group = ""
        for piece in pieces[start : end - 1]:
            if click(piece.lower()) in self._admissible:
                product.values[piece.lower()] = group
            else:
                group = piece.lower()

    # Judging

    def affordable(self, price: str) -> bool:
        """Whether the price, or the lower end of its range, is within the limit."""
        assert self.wanted is not None
        match = _PRICE.search(price)
        return self.wanted.cap is None or match is None or float(match[1].replace(",", "")) <= self.wanted.cap

    def options_of(self, product: Seen) -> list[str]:
        """The values to choose on its page."""
        wanted = self.wanted
        assert wanted is not None
        if wanted.options:
            chosen = (_closest(product.values, *option) for option in wanted.options)
            return [value for value in chosen if value]
        found: dict[str, str] = {}  # group -> its longest value that the instruction names
        for value, group in product.values.items():
            named = re.search(rf"(?<![a-z0-9]){re.escape(value)}(?![a-z0-9])", wanted.text)
            if named and len(value) > len(found.get(group, "")):
                found[group] = value
        return list(found.values())

    def coverage(self, product: Seen) -> float:
        """Share of the wanted phrases that the product shows, a phrase by its words."""
        assert self.wanted is not None
        seen = product.words()
        shares = [
            sum(word in seen for word in words) / len(words) for words in map(analyze, self.wanted.phrases)
        ]
        return sum(share if share > 0.5 else 0.0 for share in shares) / max(len(shares), 1)

    def exact(self, product: Seen) -> float:
        """Share of the wanted options that are offered as they are named."""
        assert self.wanted is not None
        options = self.wanted.options
        return sum(product.values.get(value) == group for group, value in options) / max(len(options), 1)

    def complete(self, product: Seen) -> bool:
        """Whether every wanted option is offered as it is named, at a price within the limit."""
        assert self.wanted is not None
        return (not self.wanted.options or self.exact(product) == 1) and self.affordable(product.price)

    def rating(self, product: Seen) -> float:
        """How well an opened product fits; the greater the better."""
        wanted = self.wanted
        assert wanted is not None
        options = len(self.options_of(product)) / len(wanted.options) if wanted.options else 1.0
        return self.coverage(product) + options + self.exact(product) + self.affordable(product.price)

    def best(self) -> Seen | None:
        """The opened product that fits best."""
        return max(self.products.values(), key=self.rating, default=None)

    # Deciding

    def next(self) -> str | None:
        """The next action."""
        if self._kind == "search":
            return self._search()
        if self._kind == "results":
            return self._pick()
        if self._kind == "sub":
            return click(PREVIOUS.lower())
        return self._decide()

    def _left(self) -> int:
        return self.max_steps - self.steps

    def _cost_of_buying(self, product: Seen) -> int:
        """Actions from its page on."""
        return len(self.options_of(product)) + 1

    def _must_return(self) -> bool:
        """Whether too few steps are left to open another product before going back to the best one."""
        best = self.best()
        if best is None:
            return False
        searching = best.page if best.query != self._query or self._kind == "search" else 0
        way = 1 + searching + abs(best.page - self._page) * (not searching)
        return self._left() < 2 + way + self._cost_of_buying(best)

    def _search(self) -> str | None:
        assert self.wanted is not None
        best = self.best()
        if best is not None and self._must_return() and best.query:
            return f"search[{best.query}]"
        queries = self.wanted.queries()
        if not queries:
            return None
        if name_key("shop reader", self.seed) % 8 == 0:  # without the options first
            queries = [*queries[1:2], *queries[:1], *queries[2:]]
        used = queries.index(self._query) + 1 if self._query in queries else 0
        return f"search[{queries[used % len(queries)]}]"

    def _pick(self) -> str | None:
        best = self.best()
        if best is not None and self._must_return():
            for asin, title, _ in self._rows:
                if title == best.title:
                    return click(asin)
            if self._query == best.query and self._page != best.page:
                return click((NEXT if self._page < best.page else PREVIOUS).lower())
            return click(BACK.lower())
        fresh = [
            (self._promise(title) - ROW * row, asin)
            for row, (asin, title, price) in enumerate(self._rows)
            if title not in self.rejected and self.affordable(price)
        ]
        if fresh:
            return click(max(fresh)[1])
        if self._rows and self._page < PAGES:
            return click(NEXT.lower())
        return click(BACK.lower())

    def _promise(self, title: str) -> float:
        """Share of the wanted words in a title."""
        assert self.wanted is not None
        wanted, own = analyze(" ".join(self.wanted.phrases)), set(analyze(title))
        return sum(word in own for word in wanted) / max(len(wanted), 1)

    def _decide(self) -> str | None:
        product = self._product()
        complete = self.complete(product)
        cost = self._cost_of_buying(product)
        if complete and self._left() > cost + 2:
            for page in ("features", "description"):
                if (
                    page not in product.texts
                    and self.coverage(product) < 1
                    and click(page) in self._admissible
                ):
                    return click(page)
        good = complete and self.coverage(product) >= ENOUGH
        if not good and product.title not in self.rejected:
            self.rejected.add(product.title)
        best = self.best()
        if good or (self._left() < cost + 4 and best is product):
            missing = [value for value in self.options_of(product) if value not in self._chosen]
            return click(missing[0]) if missing else click(BUY.lower())
        return click(PREVIOUS.lower())
