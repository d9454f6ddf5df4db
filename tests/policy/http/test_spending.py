"""Budgets of calls, tokens and money."""

from __future__ import annotations

import pytest

from repro_rl.errors import BudgetError
from support.api_questions import ask, texts
from support.api_server import completion, error


@pytest.mark.parametrize(
    ("budget", "more", "name"),
    [
        ({"calls": 6}, {}, "6 calls is used up"),
        ({"tokens": 90}, {}, "90 tokens is used up"),  # 15 a call
        ({"money": 0.00012}, {"prices": {"prompt": 1.0, "completion": 2.0}}, "money is used up"),  # 20 / 1e6
    ],
)
def test_a_budget_keeps_what_was_answered_and_a_larger_one_goes_on(server, make_client, budget, more, name):
    server.reply = lambda body, number: completion("yes")
    questions = [ask(str(i)) for i in range(10)]
    for _ in range(2):  # the same budget stops at the same question: answers in the store count
        client = make_client(budget=budget, concurrency=1, **more)
        with pytest.raises(BudgetError, match=name) as caught:
            client.ask(questions)
        assert server.calls == len(client.store) == 6
    assert str(client.store.path) in str(caught.value)
    assert f"api.budget.{next(iter(budget))}" in str(caught.value)
    larger = make_client(budget={key: 10 * value for key, value in budget.items()}, **more)
    assert texts(larger.ask(questions)) == ["yes"] * 10
    assert server.calls == 10
    usage = larger.spending.summary()
    assert (usage["answers_new"], usage["answers_found"], usage["calls_sent"]) == (4, 6, 4)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (100, 50)
    assert usage["cost"] == (None if not more else 0.0002)  # 100 x 1 + 50 x 2, per million
    # What is in the store is never refused.
    assert texts(make_client(budget={"calls": 0}).ask(questions)) == ["yes"] * 10


def test_retries_count_as_calls(server, make_client):
    server.reply = lambda body, number: error(500)
    client = make_client(budget={"calls": 3}, retries=10)
    with pytest.raises(BudgetError, match="3 calls"):
        client.ask([ask()])
    assert server.calls == 3
