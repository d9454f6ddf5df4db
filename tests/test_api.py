"""API models: the client against a server that fails in every way, the agent, and what is on disk."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_server import KEY, Reply, Server, completion, error, sensible
from command import run_command
from repro_rl.cli.api import api_model, api_run
from repro_rl.config import ApiSection, dump_config, load_config
from repro_rl.errors import ApiError, BudgetError, CheckpointError, ConfigError, DataError
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.http import Answer, AnswerStore, ChatClient, Failure, HttpPolicy, Question
from repro_rl.policy.http.exchange import PassingError, read_answer, retry_after
from repro_rl.rollout import read_trajectories
from repro_rl.study.evaluate import evaluate
from repro_rl.train.build import find_agent, load_policy


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.close()


@pytest.fixture
def make_client(server, tmp_path, monkeypatch):
    """Clients whose waits between repetitions are recorded, not made."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    clients = []

    def make(**more):
        settings = {"base_url": server.url, "model": "m", "key_env": "TEST_API_KEY", "retries": 3}
        settings |= {"cache": tmp_path / "cache", "backoff": 1.0, "give_up": 0} | more
        waits: list[float] = []
        client = ChatClient(ApiSection(**settings), wait=lambda seconds, stop: waits.append(seconds))
        client.waits = waits
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def ask(text="hello", sample=0, temperature=1.0, **more):
    return Question((("user", text),), max_tokens=50, temperature=temperature, sample=sample, **more)


def texts(results):
    return [result.text if isinstance(result, Answer) else result for result in results]


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# Errors that pass ---------------------------------------------------------------------------------

PASSING = {
    "connection reset": Reply(reset=True),
    "cut off while sending": Reply(data=completion("no").data, cut=20),
    "truncated JSON": Reply(data=completion("no").data[:-30]),
    "no JSON": Reply(data=b"<html>busy</html>"),
    "deep JSON": Reply(data=b"[" * 100_000),
    "not UTF-8": Reply(data=b'{"choices": "\xff'),
    "empty body": Reply(),
    "wrong shape": Reply(data=b'{"answer": "hello"}'),
    "a list": Reply(data=b"[1]"),
    "null": Reply(data=b"null"),
    "no choices": Reply(data=b'{"choices": []}'),
    "no message": Reply(data=b'{"choices": [{"text": "hello"}]}'),
    "message null": Reply(data=b'{"choices": [{"message": null}]}'),
    "content a number": completion(7),
    "parts without text": completion([{"type": "text"}]),
    "error with status 200": Reply(data=b'{"error": {"message": "upstream"}}'),
    "429": error(429, "slow down"),
    "408": error(408),
    "500": error(500),
    "503": Reply(503, b"", {}),
    "502 of a proxy": Reply(502, b"<html>bad gateway</html>"),
}


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_an_error_that_passes_is_asked_again(server, make_client, reply):
    server.reply = lambda body, number: reply if number < 3 else completion("yes")
    client = make_client()
    assert texts(client.ask([ask()])) == ["yes"]
    assert server.calls == client.spending.sent == 3
    assert len(client.waits) == 2
    assert 0.5 <= client.waits[0] <= 1.5  # one second, half more or less
    assert 1.0 <= client.waits[1] <= 3.0
    assert texts(make_client().ask([ask()])) == ["yes"]
    assert server.calls == 3  # from the store


@pytest.mark.parametrize("reply", PASSING.values(), ids=PASSING)
def test_one_that_stays_is_a_failure_of_that_question_only(server, make_client, reply):
    server.reply = lambda body, number: (
        reply if body["messages"][0]["content"] == "bad" else completion("yes")
    )
    client = make_client(retries=2)
    good, bad, late = client.ask([ask("good"), ask("bad"), ask("late")])
    assert (good.text, late.text) == ("yes", "yes")
    assert isinstance(bad, Failure)
    assert bad.reason
    assert not bad.refused
    assert (client.spending.sent, client.spending.new, client.spending.failed) == (5, 2, 1)
    assert len(client.store) == 2  # a failure is not kept: it is asked again when the command is repeated


def test_a_timeout_is_asked_again(server, make_client):
    server.reply = lambda body, number: Reply(hang=True) if number == 1 else completion("yes")
    client = make_client(timeout=0.3)
    assert texts(client.ask([ask()])) == ["yes"]
    server.reply = lambda body, number: Reply(hang=True)
    (lost,) = make_client(timeout=0.1, retries=0).ask([ask("other")])
    assert lost.reason == "no answer within 0.1 s"


def test_retry_after_is_respected(server, make_client):
    server.reply = lambda body, number: error(429, Retry_After="40") if number == 1 else completion("yes")
    client = make_client()
    assert texts(client.ask([ask()])) == ["yes"]
    assert client.waits == [40.0]
    server.reply = lambda body, number: error(503, Retry_After="7200")
    with pytest.raises(ApiError, match=r"asks to wait 7200 s, api\.max_wait is 300 s.*repeat the command"):
        client.ask([ask("other")])


def test_retry_after_in_all_its_forms():
    assert retry_after("2.5") == 2.5
    assert retry_after("-3") == 0
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100)))
    assert soon is not None
    assert 90 < soon <= 100
    assert retry_after(format_datetime(datetime.now(UTC) - timedelta(days=1))) == 0
    for nothing in (None, "", "soon", "inf", "nan"):
        assert retry_after(nothing) is None


def test_waits_double_up_to_the_longest(server, make_client):
    server.reply = lambda body, number: error(500)
    client = make_client(retries=12, max_wait=60.0)
    client.ask([ask()])
    for attempt, seconds in enumerate(client.waits):
        assert 0.5 * min(60, 2**attempt) <= seconds <= 1.5 * min(60, 2**attempt)
    assert len(client.waits) == 12


# Errors that do not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(400, "temperature must be 1"), "status 400: temperature must be 1"),
        (
            error(401, f"Incorrect API key provided: {KEY}"),
            r"status 401: Incorrect API key provided: \[key\]",
        ),
        (error(402, "Insufficient Balance"), "status 402: Insufficient Balance"),
        (error(404, "no model m"), "status 404: no model m"),
        (Reply(404, b"not here"), "status 404: not here"),
        (Reply(307, b"", {"Location": "http://127.0.0.1:1/"}), "status 307"),
        (error(429, "You exceeded your quota", "insufficient_quota"), "status 429: You exceeded"),
    ],
)
def test_what_concerns_every_call_stops_at_once(server, make_client, reply, said):
    server.reply = lambda body, number: reply
    client = make_client(concurrency=2)
    with pytest.raises(ApiError, match=said) as caught:
        client.ask([ask(str(i)) for i in range(50)])
    message = str(caught.value)
    assert f"{server.url}/chat/completions" in message
    assert "TEST_API_KEY" in message
    assert KEY not in message
    assert server.calls <= 4  # those under way
    assert client.waits == []


def test_what_concerns_one_prompt_is_a_failure_without_repetition(server, make_client):
    long = error(400, "This model's maximum context length is 8192 tokens", "context_length_exceeded")
    server.reply = lambda body, number: (
        long if body["messages"][0]["content"] == "long" else completion("yes")
    )
    bad, good = make_client(give_up=1).ask([ask("long"), ask("short")])
    assert isinstance(bad, Failure)
    assert bad.refused
    assert "maximum context length" in bad.reason
    assert good.text == "yes"
    assert server.calls == 2


def test_answers_under_way_are_kept_when_another_call_stops_all(server, make_client):
    begun = threading.Barrier(2)

    def reply(body, number):
        begun.wait(10)
        if body["messages"][0]["content"] == "bad":
            return error(401)
        server.release.wait(0.3)
        return completion("paid")

    server.reply = reply
    client = make_client(concurrency=2)
    with pytest.raises(ApiError, match="401"):
        client.ask([ask("bad"), ask("slow"), *(ask(str(i)) for i in range(20))])
    assert client.store.get(client.key(ask("slow"))).text == "paid"
    assert server.calls == 2


def test_a_server_that_is_gone_stops_the_run(server, make_client):
    server.reply = lambda body, number: error(500)
    client = make_client(give_up=3, retries=1, concurrency=1)
    with pytest.raises(ApiError, match=r"3 questions in a row without an answer.*when the server is back"):
        client.ask([ask(str(i)) for i in range(10)])
    assert server.calls == 3 * 2
    nowhere = make_client(give_up=50, retries=2, base_url="http://127.0.0.1:1/v1")
    with pytest.raises(ApiError, match="ConnectError"):  # never reached: a wrong address
        nowhere.ask([ask(str(i)) for i in range(10)])


# Reading answers ----------------------------------------------------------------------------------


def read(reply: Reply) -> Answer:
    return read_answer(reply.data, {"messages": [{"role": "user", "content": "x" * 10}]})


def test_answers_in_their_forms():
    assert read(completion("hi")) == Answer("hi", "stop", 10, 5)
    assert read(completion("hi", finish="length")).finish == "length"
    assert read(completion([{"type": "text", "text": "a"}, {"text": "b"}])).text == "ab"
    thinker = read(completion(None, finish="length", reasoning_content="x" * 40))
    assert (thinker.text, thinker.finish, thinker.reasoning_tokens) == ("", "length", 10)
    # Reasoning is no part of the text; without a count, four characters make a token.
    assert read(completion("four", usage=None, reasoning_content="y" * 8)) == Answer(
        "four", "stop", 3, 3, 2, True
    )
    assert read(completion("hi", usage=("many", -1))).estimated
    assert read(completion("a\ud800b")).text == "a?b"
    assert read(Reply(data=b"\n\n\n" + completion("late").data)).text == "late"


def test_reasoning_tokens_as_the_server_counts_them():
    data = json.loads(completion("hi", usage=(7, 90)).data)
    data["usage"]["completion_tokens_details"] = {"reasoning_tokens": 80}
    assert read(Reply(data=json.dumps(data).encode())) == Answer("hi", "stop", 7, 90, 80)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "error", "prompt_tokens", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


CHOICES = st.lists(st.fixed_dictionaries({"message": JSON}), max_size=2)


@given(JSON | st.fixed_dictionaries({"choices": CHOICES}))
def test_any_json_is_an_answer_or_a_named_error(value):
    with contextlib.suppress(PassingError):
        assert isinstance(read_answer(json.dumps(value).encode(), {}).text, str)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_named_error(data):
    with pytest.raises(PassingError):
        read_answer(data, {})


# What is sent -------------------------------------------------------------------------------------


def test_the_request(server, make_client):
    server.reply = lambda body, number: completion("yes")
    make_client().ask([ask("hi", top_p=0.9)])
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "temperature": 1.0,
            "max_tokens": 50,
            "top_p": 0.9,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.forget()
    extra = {"temperature": None, "chat_template_kwargs": {"enable_thinking": False}}
    make_client(
        extra=extra, limit_field="max_completion_tokens", reasoning_tokens=1000, send_seed=True, key_env=None
    ).ask([ask("hi", sample=2**64 - 1)])
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "max_completion_tokens": 1050,
            "seed": 2**31 - 1,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert "authorization" not in server.headers[0]


def test_calls_under_way_are_bounded(server, make_client):
    def reply(body, number):
        server.release.wait(0.02)
        return completion("yes")

    server.reply = reply
    make_client(concurrency=3).ask([ask(str(i)) for i in range(30)])
    assert 2 <= server.most_busy <= 3


# The store ----------------------------------------------------------------------------------------


def test_equal_questions_are_asked_once_and_samples_apart(server, make_client):
    count = iter(range(100))
    server.reply = lambda body, number: completion(f"answer {next(count)}")
    client = make_client(concurrency=1)
    heard = []
    first = texts(client.ask([ask("a"), ask("a"), ask("b"), ask("a", sample=1)], heard.append))
    assert first == ["answer 0", "answer 0", "answer 1", "answer 2"]
    assert sum(heard) == 4
    again = make_client()
    assert texts(again.ask([ask("a", sample=1), ask("b"), ask("a")])) == ["answer 2", "answer 1", "answer 0"]
    assert server.calls == 3
    assert again.spending.summary()["answers_found"] == 3
    # Greedy: the sample number changes nothing.
    assert len(set(texts(client.ask([ask("a", sample=i, temperature=0) for i in range(5)])))) == 1
    assert server.calls == 4


def test_what_the_key_of_an_answer_depends_on(make_client):
    client = make_client()
    base = client.key(ask())
    assert base == make_client(base_url="http://other.example/v1", key_env=None, concurrency=1).key(ask())
    others = [
        client.key(ask("other")),
        client.key(ask(sample=1)),
        client.key(ask(temperature=0.5)),
        client.key(ask(top_p=0.5)),
        make_client(model="n").key(ask()),
        make_client(extra={"x": 1}).key(ask()),
        make_client(reasoning_tokens=1).key(ask()),
    ]
    assert len({base, *others}) == 8


def test_the_store_keeps_what_it_was_given(tmp_path):
    store = AnswerStore(tmp_path)
    answer = Answer("ünï 漢字 \x00 \n", "stop", 1, 2, 3, True)
    store.put("ab" * 32, "m", answer)
    store.put("ab" * 32, "m", Answer("later", "stop", 0, 0))
    assert AnswerStore(tmp_path).get("ab" * 32) == answer
    assert store.get("cd" * 32) is None


def test_a_broken_store_is_named(tmp_path, make_client):
    (tmp_path / "answers.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match=r"answers\.sqlite: the store of answers cannot be used.*api\.cache"):
        AnswerStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"api\.cache"):
        AnswerStore(tmp_path / "file" / "cache")
    store = AnswerStore(tmp_path / "good")
    store.put("00" * 32, "m", Answer("x", "stop", 0, 0))
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE answers SET answer = '{}'")
    with pytest.raises(DataError, match=f"record {'00' * 32}: not an answer"):
        store.get("00" * 32)


def ask_in_a_child(url, folder, start, results):
    start.wait(20)
    with ChatClient(ApiSection(base_url=url, model="m", cache=folder, concurrency=4)) as client:
        results.put(texts(client.ask([ask(str(i)) for i in range(24)])))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the locks are those of POSIX")
def test_two_processes_share_a_store_and_ask_nothing_twice(server, tmp_path):
    def reply(body, number):
        server.release.wait(0.03)
        return completion(body["messages"][0]["content"] * 2)

    server.reply = reply
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would take seconds to import
    start, results = fork.Barrier(2), fork.Queue()
    both = [
        fork.Process(target=ask_in_a_child, args=(server.url, tmp_path, start, results)) for _ in range(2)
    ]
    for process in both:
        process.start()
    assert [results.get(timeout=60) for _ in both] == [[str(i) * 2 for i in range(24)]] * 2
    for process in both:
        process.join(20)
    assert server.calls == 24


def open_in_a_child(folder, start, results):
    start.wait(20)
    try:
        AnswerStore(folder).close()
        results.put(None)
    except DataError as error:
        results.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fresh interpreter would take seconds to import")
def test_processes_may_open_a_new_store_at_the_same_moment(tmp_path):
    fork = multiprocessing.get_context("fork")
    for place in range(15):
        start, results = fork.Barrier(4), fork.Queue()
        children = [
            fork.Process(target=open_in_a_child, args=(tmp_path / str(place), start, results))
            for _ in range(4)
        ]
        for child in children:
            child.start()
        assert [results.get(timeout=60) for _ in children] == [None] * 4
        for child in children:
            child.join(20)


# Budgets ------------------------------------------------------------------------------------------


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
    for _ in range(2):  # the same budget stops at the same place: answers in the store count
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


# Settings and the key -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"base_url": ""}, r"api\.base_url is ''.*http://localhost:8000/v1"),
        ({"base_url": "localhost:8000"}, r"api\.base_url"),
        ({"model": ""}, r"api\.model is empty"),
        ({"key_env": "TEST_NO_SUCH_KEY"}, r"variable TEST_NO_SUCH_KEY \(api\.key_env\) is not set"),
    ],
)
def test_missing_settings_are_named(make_client, more, said):
    with pytest.raises(ConfigError, match=said):
        make_client(**more)


def test_a_key_in_the_wrong_place_is_refused_and_not_repeated():
    for override in (
        f"api.key_env={KEY}",
        "api={key_env: 0a1b2c3d4e5f}",
        f"api.base_url=https://user:{KEY}@x.org/v1",
        f"api.base_url=https://x.org/v1?api_key={KEY}",
    ):
        with pytest.raises(ConfigError, match=r"api\.(key_env|base_url)") as caught:
            load_config("sokoban-qwen3", [override])
        assert KEY not in str(caught.value)
        assert "0a1b2c3d4e5f" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"api\.budget\.money needs api\.prices"):
        load_config("sokoban-qwen3", ["api.budget.money=1"])


def test_a_key_that_a_model_repeats_is_not_kept(server, make_client, tmp_path):
    server.reply = lambda body, number: completion(f"your key is {KEY}.")
    client = make_client()
    assert texts(client.ask([ask()])) == ["your key is [key]."]
    client.close()
    assert KEY.encode() not in on_disk(tmp_path)


@pytest.mark.parametrize("override", ["policy.model=api:gpt", "train.init=api:gpt"])
def test_training_an_api_model_is_an_error(override):
    with pytest.raises(ConfigError, match=r"an API model has no weights here, so it cannot be trained"):
        load_config("sokoban-qwen3", [override])
    with pytest.raises(ConfigError, match="it can act, but not be trained"):
        load_policy(load_config("sokoban-qwen3"), "api:gpt", training=True)


# The agent ----------------------------------------------------------------------------------------


def test_policy_completions(server, make_client):
    server.reply = lambda body, number: {
        "cut": completion("half", finish="length", usage=(3, 50)),
        "bad": error(500),
        "none": completion(None, reasoning_content="hm"),
    }[body["messages"][0]["content"]]
    policy = HttpPolicy(make_client(retries=0))
    keys = np.array([1, 2, 2**64 - 1], dtype=np.uint64)
    cut, bad, none = policy.generate(["cut", "bad", "none"], keys, SamplingSettings(50, 0.4))
    assert (cut.text, cut.finished, cut.error, cut.prompt_tokens, cut.tokens) == ("half", False, None, 3, 50)
    assert (cut.prompt_ids, cut.token_ids, len(cut.logprobs)) == ((), (), 0)
    assert (bad.text, bad.finished, bad.error, bad.tokens) == ("", False, "status 500: no", 0)
    assert (none.text, none.finished, none.error) == ("", True, None)
    assert policy.encode("anything") == ()


@pytest.fixture
def settings(server, tmp_path, monkeypatch):
    """Overrides of a small evaluation in full style."""
    monkeypatch.setenv("TEST_API_KEY", KEY)
    return [
        "env.settings={style: grid, train_rooms: 6, validation_rooms: 2, test_rooms: 4, solution: [2, 5], "
        "max_steps: 6}",
        "eval={tasks: 4, validation_tasks: 2}",
        f"api={{base_url: '{server.url}', model: m, key_env: TEST_API_KEY, backoff: 0, retries: 2, "
        f"cache: '{tmp_path / 'cache'}'}}",
    ]


def without_time(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "api")}


def test_an_evaluation_repeated_makes_no_call(server, settings, tmp_path):
    config = load_config("sokoban-qwen3", settings)
    first = evaluate(config, Path("api:m"), name="m", out=tmp_path / "run")
    calls = server.calls
    assert first["episodes"] == 4
    assert first["errors"] == 0
    assert first["checkpoint"] == "api:m"
    assert first["format_rate"] == 1.0
    assert first["progress"]["retrospective"]["covered"] == 1.0
    assert first["api"]["calls_sent"] == first["api"]["answers_new"] == calls
    records = (tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz").read_bytes()
    second = evaluate(config, Path("api:m"), name="m", out=tmp_path / "run")
    assert server.calls == calls
    assert second["api"] == first["api"] | {"calls_sent": 0, "answers_new": 0, "answers_found": calls}
    assert without_time(first) == without_time(second)
    assert (tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz").read_bytes() == records
    for record in read_trajectories(tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz"):
        assert all((step["prompt_tokens"], step["tokens"]) == (10, 5) for step in record["steps"])
        assert len(record["reflection"]["values"]) == len(record["steps"])
    evaluate(load_config("sokoban-qwen3", [*settings, "eval.seed=5"]), Path("api:m"), name="m")
    assert server.calls > calls  # another seed, other samples


def test_calls_without_an_answer_are_failed_episodes_and_repeating_mends_them(server, settings, tmp_path):
    def reply(body, number):
        prompt = body["messages"][0]["content"]
        if "You are at step 2 " in prompt:
            if len(lost) < 2:  # the first two prompts of a second step that come by
                lost.add(prompt)
            if prompt in lost:
                return error(503)
        return completion(sensible(body))

    lost: set[str] = set()

    server.reply = reply
    config = load_config("sokoban-qwen3", [*settings, "api.concurrency=1"])
    result = evaluate(config, Path("api:m"), name="m", out=tmp_path / "run")
    assert result["errors"] == 2
    assert result["episodes"] == 4
    records = list(read_trajectories(tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz"))
    broken = [record for record in records if record["error"]]
    assert [record["error"] for record in broken] == ["no completion at step 2: status 503: no"] * 2
    assert all(len(record["steps"]) == 1 for record in broken)
    server.reply = lambda body, number: completion(sensible(body))
    again = evaluate(config, Path("api:m"), name="m")
    assert again["errors"] == 0
    assert again["api"]["answers_found"] >= result["api"]["answers_new"] - 2  # two short reflections differ


def test_reflections_without_an_answer_or_sense(server, settings, tmp_path):
    def reply(body, number):
        judged = "Now give the" in body["messages"][0]["content"]
        return completion("I would say it went well.") if judged else completion(sensible(body))

    server.reply = reply
    config = load_config("sokoban-qwen3", settings)
    evaluate(config, Path("api:m"), name="m", out=tmp_path / "a")
    path = Path("trajectories") / "eval-m.jsonl.gz"
    for record in read_trajectories(tmp_path / "a" / path):
        assert record["reflection"]["values"] is None
        assert "text_outside" in record["reflection"]["defects"]
    server.reply = lambda body, number: (
        error(500) if "Now give the" in body["messages"][0]["content"] else completion(sensible(body))
    )
    config = load_config("sokoban-qwen3", [*settings, "api.model=n"])
    evaluate(config, Path("api:n"), name="m", out=tmp_path / "b")
    for record in read_trajectories(tmp_path / "b" / path):
        assert record["reflection"]["defects"] == ["no_answer"]


def test_compact_prompts_are_refused(settings):
    with pytest.raises(ConfigError, match=r"compact prompts of tiny models.*-c sokoban-qwen3"):
        evaluate(load_config("sokoban-tiny", settings), Path("api:m"), name="m")


# The commands -------------------------------------------------------------------------------------


def test_eval_and_play_on_the_command_line(server, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out = run_command(
        capsys, monkeypatch, "eval", "api:lab/some model", "-c", "sokoban-qwen3", *settings
    )
    assert status == 0, out
    folder = tmp_path / "runs" / "api-lab-some-model"
    assert f"{server.calls} answers in {server.calls} calls, 0 found in the cache" in out
    result = json.loads((folder / "eval" / "api-lab-some-model.json").read_text())
    assert result["checkpoint"] == "api:lab/some model"
    assert {body["model"] for body in server.bodies} == {"lab/some model"}
    # The folder is a run folder: it can be evaluated again, watched, and reported on.
    calls = server.calls
    status, out = run_command(capsys, monkeypatch, "eval", folder)
    assert status == 0, out
    assert server.calls == calls
    status, out = run_command(capsys, monkeypatch, "play", "sokoban", "--agent", folder)
    assert status == 0, out
    assert "retrospective" in out
    assert KEY.encode() not in on_disk(tmp_path)
    assert KEY not in out


def test_errors_on_the_command_line_hold_no_key(server, settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    server.reply = lambda body, number: error(401, f"bad key {KEY}")
    status, out = run_command(capsys, monkeypatch, "eval", "api:m", "-c", "sokoban-qwen3", *settings)
    assert status == 2
    assert out.startswith("ApiError")
    assert "Traceback" not in out
    assert "bad key [key]" in out
    assert KEY not in out
    assert KEY.encode() not in on_disk(tmp_path)
    server.reply = lambda body, number: completion(sensible(body))
    server.forget()
    status, out = run_command(
        capsys, monkeypatch, "eval", "api:m", "-c", "sokoban-qwen3", *settings, "api.budget.calls=5"
    )
    assert (status, server.calls) == (2, 5)
    assert "BudgetError" in out
    status, out = run_command(capsys, monkeypatch, "eval", "api:", "-c", "sokoban-qwen3", *settings)
    assert status == 2
    assert "api:MODEL" in out


def test_names_of_api_models(tmp_path):
    assert api_model(Path("api:Qwen/Qwen3-8B")) == "Qwen/Qwen3-8B"
    assert api_model(Path("runs/x")) is None
    assert api_run("Qwen/Qwen3-8B:free") == Path("runs/api-Qwen-Qwen3-8B-free")
    assert find_agent("api:m") == Path("api:m")
    with pytest.raises(CheckpointError, match="No folder"):
        find_agent(tmp_path / "none")
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds no model"):
        find_agent(tmp_path)


def test_settings_survive_the_run_folder(settings):
    config = load_config("sokoban-qwen3", settings)
    assert "TEST_API_KEY" in dump_config(config)
    assert KEY not in dump_config(config)
