"""The scripted expert and the ground-truth progress.

Progress (decision D4), from the page reached and the reward's own parts:

- search page: 0
- results page: .05; .1 when the expert's product is among the results, .2 when it is on this page
- item page and its sub-pages: .2 + .7 x the score of buying now
- after the purchase: its score

It never falls along the expert's path, and it is 1.0 only after a perfect purchase. The expert's product is
the goal's own; where that cannot score 1.0, another that can.
"""

from __future__ import annotations

from collections.abc import Iterable

from repro_rl.envs.webshop.actions import click
from repro_rl.envs.webshop.goals import Goal
from repro_rl.envs.webshop.pages import BACK, BUY, NEXT, PREVIOUS
from repro_rl.envs.webshop.session import Session
from repro_rl.envs.webshop.shop import Shop, page_of
from repro_rl.random_streams import name_key

ON_RESULTS, AMONG_RESULTS, ON_THIS_PAGE = 0.05, 0.1, 0.2  # progress on a results page
SCORE_SHARE = 0.7  # factor of the purchase's score on an item page


def progress(shop: Shop, goal: Goal, session: Session) -> float:
    """Ground-truth progress of the state, 0..1."""
    if session.kind == "search":
        return 0.0
    if session.kind == "results":
        solution = shop.solution(goal)
        number = shop.target(goal) if solution is None else solution.number
        if number in session.page_products():
            return ON_THIS_PAGE
        return AMONG_RESULTS if number in session.results else ON_RESULTS
    score = shop.appraisal(goal, session.product).parts(session.options).reward
    return score if session.kind == "done" else ON_THIS_PAGE + SCORE_SHARE * score


def plain_query(text: str) -> str:
    """``text`` as a query that fits the action grammar and is not a special query."""
    return " ".join(text.replace("[", " ").replace("]", " ").split()).lstrip("<")


def best_query(shop: Shop, number: int, queries: Iterable[str], task: str) -> str | None:
    """A query that lists the product on the earliest page; None when none lists it.

    Ties are broken by a hash of ``task``. If all demonstrations searched in the same way, only chance would
    decide whether RL finds another (decision D33; docs/results-webshop.md has the measured cost).
    """
    pages = {query: page_of(shop.catalogue.search(query.lower()), number) for query in queries if query}
    earliest = min((page for page in pages.values() if page), default=0)
    if not earliest:
        return None
    return min(
        (query for query, page in pages.items() if page == earliest),
        key=lambda query: name_key("query", task, query),
    )


def _next_sub_page(shop: Shop, goal: Goal, session: Session) -> str:
    """An unread sub-page that may show goal attributes not seen so far; "" when there is none."""
    product, read = shop.item(session.product).product, session.pages_read.get(session.product, ())
    texts = [product.title]
    for page, text in (("features", " ".join(product.bullets)), ("description", product.description)):
        if all(any(attribute in text.lower() for text in texts) for attribute in goal.attributes):
            return ""
        if page not in read and text.strip():
            return page
        texts.append(text)
    return ""


def next_action(shop: Shop, goal: Goal, session: Session, queries: Iterable[str]) -> str | None:
    """The next action of a plan that ends in a purchase of score 1.0; None when there is none.

    It opens the sub-pages that may show goal attributes which the title does not.
    """
    solution = shop.solution(goal)
    if solution is None or session.kind == "done":
        return None
    if session.kind == "search":
        query = best_query(shop, solution.number, queries, goal.instruction)
        return None if query is None else f"search[{query}]"
    if session.kind == "results":
        page = page_of(session.results, solution.number)
        if page == 0 or session.page < 1:
            return click(BACK.lower())
        if page == session.page:
            return click(shop.catalogue.product(solution.number).asin.lower())
        return click((NEXT if page > session.page else PREVIOUS).lower())
    if session.product != solution.number:
        return click((PREVIOUS if session.kind == "sub" else BACK).lower())
    if session.kind == "sub":
        return click(PREVIOUS.lower())
    sub_page = _next_sub_page(shop, goal, session)
    if sub_page:
        return click(sub_page)
    for group, value in solution.options:
        if session.options.get(group) != value:
            return click(value)
    return click(BUY.lower())
