"""Budgets of calls, tokens and money, and what the parts of a command use of them."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress

import pytest

from repro_rl.errors import ApiError, BudgetError, DataError
from repro_rl.policy.http import KeptAnswers
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


# Parts of a command ---------------------------------------------------------------------------------


@contextmanager
def interrupted(client, kept):
    """A part that is interrupted where its block ends."""
    with suppress(KeyboardInterrupt), client.part(kept):
        yield
        raise KeyboardInterrupt


def used(usage):
    names = ("calls_sent", "answers_new", "answers_found", "prompt_tokens", "completion_tokens")
    return tuple(usage[name] for name in names)


def test_parts_share_the_budget_and_have_counts_of_their_own(server, make_client):
    server.reply = lambda body, number: completion("yes")  # 10 + 5 tokens
    client = make_client(budget={"calls": 5}, concurrency=1)
    with client.part():
        client.ask([ask("a"), ask("b"), ask("c")])
        assert used(client.spending.part_summary()) == (3, 3, 0, 30, 15)
    with client.part():
        client.ask([ask("a"), ask("d"), ask("e")])  # the command has paid for "a" already
        assert used(client.spending.part_summary()) == (2, 2, 1, 30, 15)
    assert used(client.spending.summary()) == (5, 5, 0, 50, 25)
    with client.part(), pytest.raises(BudgetError, match=r"5 calls is used up \(5 used\)"):
        client.ask([ask("f")])
    assert client.spending.part_summary() == client.spending.summary()  # no part is under way


def test_what_an_interrupted_part_has_used_counts_again(server, make_client, tmp_path):
    """Also where the store of answers is another one by then."""
    server.reply = lambda body, number: completion("yes")
    path = tmp_path / "answers.jsonl"
    first = make_client()
    with interrupted(first, KeptAnswers(path, "mine")):
        first.ask([ask("a"), ask("b"), ask("c")])
    for cache, new, found in (("cache", 1, 3), ("another", 2, 3)):
        again = make_client(cache=tmp_path / cache)
        with interrupted(again, KeptAnswers(path, "mine")):
            assert used(again.spending.summary()) == (0, 0, 3, 30, 15)
            again.ask([ask("a"), ask(cache)])  # "a" is paid again where the store does not have it
            assert used(again.spending.part_summary()) == (new, new, found, 30 + 10 * new, 15 + 5 * new)
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    limited = make_client(cache=tmp_path / "third", budget={"calls": 3})
    with (
        interrupted(limited, KeptAnswers(path, "mine")),
        pytest.raises(BudgetError, match=r"3 calls is used up \(3 used\)"),
    ):
        limited.ask([ask("new")])
    other = make_client()
    with other.part(KeptAnswers(path, "other")):
        assert used(other.spending.part_summary()) == (0, 0, 0, 0, 0)
    assert not path.exists()  # that work is finished


def test_a_part_whose_kept_answers_had_texts_did_get_texts(server, make_client, tmp_path):
    server.reply = lambda body, number: completion("yes")
    path = tmp_path / "answers.jsonl"
    first = make_client()
    with interrupted(first, KeptAnswers(path, "mine")):
        first.ask([ask("a")])
    server.reply = lambda body, number: completion(None, reasoning_content="hm")
    again = make_client()
    with again.part(KeptAnswers(path, "mine")):
        again.ask([ask("b")])
        again.check()
        assert again.spending.part_summary()["lost"] == {"reasoning_only": 1}
    with again.part():
        again.ask([ask("b")])
        with pytest.raises(ApiError, match="to any of 1 question: 1 reasoning_only"):
            again.check()


def test_broken_kept_answers_are_named(server, make_client, tmp_path):
    server.reply = lambda body, number: completion(None, finish="\ud800", reasoning_content="\ud800")
    path = tmp_path / "answers.jsonl"
    first = make_client()
    with interrupted(first, KeptAnswers(path, "mine")):
        first.ask([ask("a")])
    row = json.loads(path.read_text())
    assert row["cause"] == "reasoning_only"
    for damage in ({"prompt_tokens": -1}, {"cause": None}, {"more": 1}):
        path.write_text(json.dumps(row | damage) + "\n")
        with pytest.raises(DataError, match=r"answers\.jsonl, record row 1 of this work: not an answer"):
            first.part(KeptAnswers(path, "mine")).__enter__()
        assert path.exists()


def test_what_finished_parts_have_used_counts_once(server, make_client):
    earlier = {"answers_new": 2, "answers_found": 1, "prompt_tokens": 30, "completion_tokens": 15}
    client = make_client(budget={"tokens": 60}, concurrency=1)
    for _ in range(2):
        client.spending.add_earlier("base", earlier)
    client.spending.add_earlier(
        "meta", earlier | {"prompt_tokens": 0, "lost": {"empty": 1}, "reasons": {"empty": "no"}}
    )
    summary = client.spending.summary()
    assert used(summary) == (0, 0, 6, 30, 30)
    assert (summary["lost"], summary["reasons"]) == ({"empty": 1}, {"empty": "no"})
    with pytest.raises(BudgetError, match=r"60 tokens is used up \(60 used\)"):
        client.ask([ask()])
    assert server.calls == 0
