"""Shared by all environments of a process, and computed once: pages, appraisals, solutions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from repro_rl.envs.webshop.actions import clickable
from repro_rl.envs.webshop.data.catalogue import Catalogue
from repro_rl.envs.webshop.data.nouns import nouns
from repro_rl.envs.webshop.goals import Goal, GoalList
from repro_rl.envs.webshop.pages import BUTTONS, WINDOW, Item
from repro_rl.envs.webshop.reward import Appraisal, appraise, comparable_options, normal_color, similar
from repro_rl.random_streams import name_key

RESULTS = 50  # of a random query; the search engine limits the others


@dataclass(slots=True, frozen=True)
class Solution:
    """A purchase that scores 1.0."""

    number: int  # the product
    options: tuple[tuple[str, str], ...]  # (group, value) to choose, in page order


class Shop:
    """A catalogue with one goal list. Nothing here depends on the state of an episode."""

    def __init__(self, catalogue: Catalogue, goals: GoalList, seed: int, show_attributes: bool):
        self.catalogue, self.goals, self.seed = catalogue, goals, seed
        small = len(catalogue) <= 5_000
        self.item: Callable[[int], Item] = lru_cache(maxsize=None if small else 2_048)(
            lambda number: Item(catalogue.product(number), show_attributes)
        )
        self.appraisal: Callable[[Goal, int], Appraisal] = lru_cache(maxsize=16_384)(self._appraise)
        self.solution: Callable[[Goal], Solution | None] = lru_cache(maxsize=4_096)(self._solve)

    def target(self, goal: Goal) -> int:
        """The number of the goal's own product."""
        number = self.catalogue.number(goal.asin)
        assert number is not None, "goals are checked against the catalogue when they are read"
        return number

    def search(self, query: str, goal: Goal) -> Sequence[int]:
        """Product numbers for a query, best first, the original's special queries included.

        ``<r>``: random products, the same for the same (seed, task, query); ``<c> category``, ``<q> kind``
        and ``<a> attribute`` (on which the original crashes): all products of that, in file order.
        """
        first, *rest = query.split(" ")
        if first == "<r>":
            return self._random(goal.id, query)
        if first == "<c>":
            return self.catalogue.by_category(rest[0].strip() if rest else "")
        if first == "<q>":
            return self.catalogue.by_query(" ".join(rest).strip())
        if first == "<a>":
            return self.catalogue.by_attribute(" ".join(rest).strip())
        return self.catalogue.search(query)

    def _random(self, task: str, query: str) -> Sequence[int]:
        chosen: dict[int, None] = {}
        count = len(self.catalogue)
        for draw in itertools.count():
            if len(chosen) == min(RESULTS, count):
                return tuple(chosen)
            chosen[name_key(self.seed, "webshop random", task, query, draw) % count] = None
        raise AssertionError

    def _nouns(self, goal: Goal) -> Sequence[str]:
        target = self.target(goal)
        if self.catalogue.product(target).title == goal.name:
            return self.catalogue.nouns(target)
        return nouns(goal.name)

    def _appraise(self, goal: Goal, number: int) -> Appraisal:
        product = self.catalogue.product(number)
        price = self.goals.price(product)
        return appraise(product, price, goal, self.catalogue.nouns(number), self._nouns(goal))

    def queries(self, goal: Goal) -> Iterator[str]:
        """Plausible queries for a goal, the simplest first; the target's title last."""
        attributes = " ".join(goal.attributes)
        yield f"{attributes} {goal.query}"
        yield goal.query
        yield f"{attributes} {goal.query} {' '.join(goal.options)}"
        yield goal.instruction
        yield goal.name

    def _solve(self, goal: Goal) -> Solution | None:
        """The target if it can score 1.0, else the first of the search results that can."""
        target = self.target(goal)
        solution = self._perfect(goal, target)
        if solution is not None:
            return solution
        results = dict.fromkeys(itertools.chain.from_iterable(map(self.catalogue.search, self.queries(goal))))
        others = (self._perfect(goal, number) for number in results if number != target)
        return next((other for other in others if other is not None), None)

    def _perfect(self, goal: Goal, number: int) -> Solution | None:
        appraisal = self.appraisal(goal, number)
        full = appraisal.attributes == len(goal.attributes) and appraisal.price and appraisal.type[0] == 1.0
        if not full:
            return None
        options = _choose(goal, self.catalogue.product(number).options)
        return None if options is None else Solution(number, options)


def _choose(goal: Goal, groups: dict[str, tuple[str, ...]]) -> tuple[tuple[str, str], ...] | None:
    """One value each for some groups, so that every goal option is matched; None when that is impossible."""
    targets = comparable_options(goal)
    own = dict(goal.named_options or ())
    group_of = {value: group for group, values in groups.items() for value in values}
    choices: list[list[tuple[str, str, frozenset[int]]]] = []
    for group, values in groups.items():
        matches = []
        for value in dict.fromkeys(values):
            if group_of[value] != group or value in BUTTONS or not clickable(value):
                continue  # a click on it would have another effect
            normal = normal_color(value)
            hits = frozenset(i for i, target in enumerate(targets) if similar(normal, target))
            if hits:
                matches.append((group, value, hits))
        # The goal's own value first, then by the number of matches; one value per set of matches is enough.
        matches.sort(key=lambda match: (own.get(match[0]) != match[1], -len(match[2])))
        choices.append(list({match[2]: match for match in reversed(matches)}.values())[::-1])
    return _cover(choices, frozenset(range(len(targets))))


def _cover(choices: list[Any], missing: frozenset[int]) -> tuple[tuple[str, str], ...] | None:
    if not missing:
        return ()
    if not choices:
        return None
    for group, value, hits in choices[0]:
        if hits & missing:
            rest = _cover(choices[1:], missing - hits)
            if rest is not None:
                return ((group, value), *rest)
    return _cover(choices[1:], missing)


def page_of(results: Sequence[int], number: int) -> int:
    """The results page (from 1) that shows product ``number``, 0 when none does."""
    return results.index(number) // WINDOW + 1 if number in results else 0
