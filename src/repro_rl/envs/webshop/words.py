"""The ``words`` style: observations from a small closed vocabulary, and short names for actions.

For tiny models, which cannot read product texts: the page is compared with the instruction. Only the pages
opened in this episode are used, never the target or hidden fields:

- search page: ``search-page a<goal attributes> o<goal options>``
- results page: ``results:<page>`` and a word per row, ``r<row>:k<k>a<a>p<p>v<v>``
  - ``k``: kind of product named in the title (0 not, 1 some of its words, 2 all)
  - ``a``, ``p``, ``v``: goal attributes in the title, price within the cap, opened before
- item page and sub-pages: ``item``, ``features`` or ``description``, then ``k<k>``
  - ``a<seen>/<all>``: goal attributes in the pages read of this item
  - ``f<0|1>``, ``d<0|1>``, ``p<0|1>``: features read, description read, price within the cap
  - one word for each option group: ``g<group>:none`` (no value is in the goal), ``g<group>:v<value>`` (this
    value is in the goal and not chosen) or ``g<group>:ok`` (chosen)
- after the purchase: ``bought:<score in tenths>``

Actions: ``search[ <slots> ]`` with any of ``$kind $a1 $a2 ... $o1 $o2 ...`` (pieces of the instruction),
``click[r<row>]``, ``click[g<group>v<value>]``, ``click[next]``, ``click[prev]``, ``click[back]``,
``click[features]``, ``click[description]``, ``click[buy]``. The full actions are accepted too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from repro_rl.envs.webshop.actions import click, parse
from repro_rl.envs.webshop.data.products import DEFAULT_PRICE
from repro_rl.envs.webshop.expert import plain_query
from repro_rl.envs.webshop.goals import Goal
from repro_rl.envs.webshop.pages import BACK, BUY, NEXT, PREVIOUS, WINDOW
from repro_rl.envs.webshop.reward import normal_color
from repro_rl.envs.webshop.session import Session
from repro_rl.envs.webshop.shop import Shop

ATTRIBUTES, OPTIONS = 4, 3  # slots of each kind in the vocabulary; a goal's further ones have no word
GROUPS, VALUES, PAGES = 3, 8, 6
_NAMES = {"next": NEXT.lower(), "prev": PREVIOUS.lower(), "back": BACK.lower(), "buy": BUY.lower()}
_SHORT_NAMES = {full: name for name, full in _NAMES.items()}
_UNNAMED: dict[str, str | None] = {"reviews": None, "attributes": None}  # sub-pages that the style leaves out
_SLOTS = (
    "$kind",
    *(f"$a{i}" for i in range(1, ATTRIBUTES + 1)),
    *(f"$o{i}" for i in range(1, OPTIONS + 1)),
)
_ROW, _VALUE = re.compile(r"r(\d{1,2})"), re.compile(r"g(\d)v(\d)")


def vocabulary() -> Iterator[str]:
    """Every word of the style, actions included."""
    yield from ("search-page", "item", "features", "description", "reviews", "attributes", "search[", "]")
    yield from _SLOTS
    yield from (f"a{i}" for i in range(ATTRIBUTES + 1))
    yield from (f"o{i}" for i in range(OPTIONS + 1))
    yield from (f"results:{i}" for i in range(PAGES + 1))
    for row, k, a, p, v in itertools.product(
        range(1, WINDOW + 1), range(3), range(ATTRIBUTES + 1), "01", "01"
    ):
        yield f"r{row}:k{k}a{a}p{p}v{v}"
    yield from (f"{letter}{bit}" for letter in "fdp" for bit in "01")
    yield from (f"k{k}" for k in range(3))
    yield from (f"a{a}/{b}" for b in range(ATTRIBUTES + 1) for a in range(b + 1))
    for group in range(1, GROUPS + 1):
        yield from (f"g{group}:{state}" for state in ("none", "ok"))
        yield from (f"g{group}:v{value}" for value in range(1, VALUES + 1))
        yield from (click(f"g{group}v{value}") for value in range(1, VALUES + 1))
    yield from (click(f"r{row}") for row in range(1, WINDOW + 1))
    yield from (click(name) for name in (*_NAMES, "features", "description"))
    yield from (f"bought:{tenth}" for tenth in range(11))


class Words:
    """Translates pages and actions of one episode; stores which products were opened."""

    def __init__(self, shop: Shop, goal: Goal, session: Session):
        self._shop, self._goal, self._session = shop, goal, session
        self._attributes = [attribute.lower() for attribute in goal.attributes][:ATTRIBUTES]
        self._options = {normal_color(value) for value in goal.options}
        self._slots = {"$kind": goal.query}
        self._slots |= {f"$a{i}": value for i, value in enumerate(goal.attributes[:ATTRIBUTES], 1)}
        self._slots |= {f"$o{i}": value for i, value in enumerate(goal.options[:OPTIONS], 1)}
        self._titles: dict[int, tuple[int, frozenset[int], int]] = {}  # product -> the result of _title
        self._opened: set[int] = set()
        self._values: dict[int, dict[str, str | None]] = {}  # product -> short names of its options

    # Actions

    def full_action(self, action: str) -> str:
        """The full action of a short name; any other text is returned unchanged."""
        verb, name = parse(action)
        if verb == "search" and "$" in name:
            return f"search[{self._query(name)}]"
        if verb != "click":
            return action
        if match := _ROW.fullmatch(name):
            numbers, row = (
                self._session.page_products() if self._session.kind == "results" else (),
                int(match[1]),
            )
            return click(self._asin(numbers[row - 1])) if 1 <= row <= len(numbers) else ""
        if match := _VALUE.fullmatch(name):
            return self._value(int(match[1]), int(match[2]))
        return click(_NAMES.get(name, name))

    def _query(self, text: str) -> str:
        return " ".join(self._slots.get(word, "") if word[0] == "$" else word for word in text.split())

    def _asin(self, number: int) -> str:
        return self._shop.item(number).product.asin.lower()

    def _value(self, group: int, value: int) -> str:
        if self._session.kind == "item":
            groups = list(self._shop.item(self._session.product).product.options.values())
            if 1 <= group <= len(groups) and 1 <= value <= len(groups[group - 1]):
                return click(groups[group - 1][value - 1])
        return ""

    def short_name(self, action: str) -> str | None:
        """The short name of a full action on this page; None when it has none."""
        verb, name = parse(action)
        if verb != "click":
            return action
        short = self._page_names().get(name, _SHORT_NAMES.get(name, name))
        return None if short is None else click(short)

    def _page_names(self) -> dict[str, str | None]:
        """Short names of what this page has of its own: its rows or values; None for what has no name."""
        if self._session.kind == "results":
            rows = enumerate(self._session.page_products(), 1)
            # Of two rows of one product the first counts.
            return _UNNAMED | {self._asin(number): f"r{row}" for row, number in reversed(list(rows))}
        if self._session.kind != "item":
            return _UNNAMED
        names = self._values.get(self._session.product)
        if names is None:
            item = self._shop.item(self._session.product)
            names = _UNNAMED | dict.fromkeys(item.group_of)
            for g, values in enumerate(itertools.islice(item.product.options.values(), GROUPS), 1):
                for v, value in enumerate(values[:VALUES], 1):
                    if value in item.group_of and names[value] is None:
                        names[value] = f"g{g}v{v}"
            self._values[self._session.product] = names
        return names

    def admissible(self) -> list[str]:
        """Short names of the actions that are possible here; on the search page a few slot queries."""
        if self._session.kind == "search":
            return [f"search[ {query} ]" for query in self.queries()]
        own = self._page_names()
        names = (own.get(name, _SHORT_NAMES.get(name, name)) for name in self._session.clickables())
        return [click(name) for name in names if name is not None]

    def queries(self) -> list[str]:
        """Slot queries in the expert's order of preference: attributes and kind, kind, all, each piece."""
        attributes = [slot for slot in self._slots if slot.startswith("$a")]
        options = [slot for slot in self._slots if slot.startswith("$o")]
        every = [["$kind", *attributes], ["$kind"], ["$kind", *attributes, *options], ["$kind", *options]]
        every += [["$kind", slot] for slot in attributes] + [[slot] for slot in attributes]
        return list(dict.fromkeys(" ".join(slots) for slots in every))

    def expand(self, query: str) -> str:
        """The text a slot query searches for."""
        return plain_query(self._query(query))

    # Observations

    def observe(self) -> tuple[str, str]:
        """(observation, brief) of the page; call once after every step."""
        session = self._session
        if session.kind == "search":
            return (
                f"search-page a{len(self._attributes)} o{min(len(self._goal.options), OPTIONS)}",
                "search-page",
            )
        if session.kind == "results":
            return self._results()
        if session.kind == "done":
            score = self._shop.appraisal(self._goal, session.product).parts(session.options).reward
            return (f"bought:{int(score * 10 + 1e-9)}",) * 2
        text = self._item()
        return text, text

    def _title(self, number: int) -> tuple[int, frozenset[int], int]:
        """(kind named, indices of goal attributes in the title, price within the cap) of a product."""
        features = self._titles.get(number)
        if features is None:
            product = self._shop.item(number).product
            title = product.title.lower()
            words = self._goal.query.split()
            named = sum(word in title for word in words)
            kind = 2 if named == len(words) else 1 if named else 0
            hits = frozenset(i for i, attribute in enumerate(self._attributes) if attribute in title)
            low = product.prices[0] if product.prices else DEFAULT_PRICE
            features = self._titles[number] = kind, hits, int(low <= self._goal.price_upper)
        return features

    def _results(self) -> tuple[str, str]:
        words, best = [f"results:{max(0, min(self._session.page, PAGES))}"], (-1, -1, -1)
        for row, number in enumerate(self._session.page_products(), 1):
            kind, hits, price = self._title(number)
            best = max(best, (kind, len(hits), price))
            words.append(f"r{row}:k{kind}a{len(hits)}p{price}v{int(number in self._opened)}")
        brief = words[0] if best[0] < 0 else f"{words[0]} k{best[0]} a{best[1]} p{best[2]}"
        return " ".join(words), brief

    def _item(self) -> str:
        session = self._session
        number = session.product
        self._opened.add(number)
        item = self._shop.item(number)
        kind, hits, price = self._title(number)
        read = session.pages_read.get(number, ())
        texts = [" ".join(item.product.bullets).lower()] if "features" in read else []
        texts += [item.product.description.lower()] if "description" in read else []
        seen = sum(i in hits or any(a in text for text in texts) for i, a in enumerate(self._attributes))
        words = [session.sub_page or "item", f"k{kind}", f"a{seen}/{len(self._attributes)}"]
        words += [f"f{int('features' in read)}", f"d{int('description' in read)}", f"p{price}"]
        groups = itertools.islice(item.product.options.items(), GROUPS)
        return " ".join(words + [f"g{g}:{self._choice(*group)}" for g, group in enumerate(groups, 1)])

    def _choice(self, group: str, values: tuple[str, ...]) -> str:
        matching = [i for i, v in enumerate(values[:VALUES], 1) if normal_color(v) in self._options]
        if not matching:
            return "none"
        chosen = self._session.options.get(group)
        exact = [i for i in matching if values[i - 1] in self._goal.options] or matching
        if chosen is not None and normal_color(chosen) in self._options:
            return "ok"
        return f"v{exact[0]}"
