"""The client against a server that fails in every way."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from pydantic import ValidationError

from repro_rl.config import load_config
from repro_rl.errors import ApiError, ConfigError
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.http import Failure
from repro_rl.policy.http.policy import MessageSession
from support.api_questions import ask, on_disk, texts
from support.api_server import KEY, Reply, completion, error

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
    assert server.calls == client.spending.whole.sent == 3
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
    whole = client.spending.whole
    assert (whole.sent, whole.new, whole.failed) == (5, 2, 1)
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


def test_waits_double_up_to_the_longest(server, make_client):
    server.reply = lambda body, number: error(500)
    client = make_client(retries=12, max_wait=60.0)
    client.ask([ask()])
    for attempt, seconds in enumerate(client.waits):
        assert 0.5 * min(60, 2**attempt) <= seconds <= 1.5 * min(60, 2**attempt)
    assert len(client.waits) == 12


# Errors that do not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "message_pattern"),
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
def test_what_concerns_every_call_stops_at_once(server, make_client, reply, message_pattern):
    server.reply = lambda body, number: reply
    client = make_client(concurrency=2)
    with pytest.raises(ApiError, match=message_pattern) as caught:
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


def test_a_text_that_no_request_can_hold_fails_its_question_alone(server, make_client):
    server.reply = lambda body, number: completion("yes")
    client = make_client(give_up=1)
    bad, good = client.ask([ask("half \ud800"), ask("whole")])
    assert bad == Failure(
        "message 1 (user) was not sent: it holds a lone surrogate '\\ud800' at position 5, "
        "which is no character",
        refused=True,
        cause="unsendable",
    )
    assert good.text == "yes"
    assert server.calls == 1
    assert client.spending.summary()["lost"] == {"unsendable": 1}


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


def test_an_address_where_nothing_answers_is_said_soon(make_client):
    nowhere = make_client(give_up=50, retries=6, base_url="http://127.0.0.1:1/v1", concurrency=1)
    said = (
        r"no connection to http://127\.0\.0\.1:1/v1/chat/completions: ConnectError: .*refused.*api\.base_url"
    )
    with pytest.raises(ApiError, match=said):
        nowhere.ask([ask(str(i)) for i in range(10)])
    assert len(nowhere.waits) == 2  # seconds, where six repetitions would be minutes
    patient = make_client(give_up=0, retries=4, base_url="http://127.0.0.1:1/v1", concurrency=1)
    assert [answer.cause for answer in patient.ask([ask("0")])] == ["unavailable"]
    assert len(patient.waits) == 4


def test_one_question_is_no_questions(server, make_client):
    server.reply = lambda body, number: completion("yes")
    client = make_client(give_up=1, retries=1, concurrency=1)
    client.ask([ask("first")])
    server.reply = lambda body, number: error(500)
    with pytest.raises(
        ApiError, match=r"left 1 question in a row without an answer, each after 1 repetition;"
    ):
        client.ask([ask("second")])


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


@pytest.mark.parametrize("text", ["You play Sokoban.", ""])
def test_a_system_message_stands_before_prompts_and_conversations(server, make_client, text):
    server.reply = lambda body, number: completion("yes")
    system = {"role": "system", "content": text}
    client = make_client(system=text)
    client.ask([ask("hi")])
    assert server.bodies[-1]["messages"] == [system, {"role": "user", "content": "hi"}]
    server.forget()
    session = MessageSession(client)
    for turn in ("one", "two"):
        session.answer([0], [turn], np.array([0], np.uint64), SamplingSettings(5, 1.0))
    roles = [[message["role"] for message in body["messages"]] for body in server.bodies]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"]]
    assert all(body["messages"][0] == system for body in server.bodies)
    assert client.key(ask()) != make_client().key(ask())


def test_a_system_message_that_cannot_be_sent_is_refused(make_client):
    with pytest.raises(ValidationError, match=r"a lone surrogate .* cannot be sent"):
        make_client(system="a\ud800")


def test_calls_under_way_are_bounded(server, make_client):
    def reply(body, number):
        server.release.wait(0.02)
        return completion("yes")

    server.reply = reply
    make_client(concurrency=3).ask([ask(str(i)) for i in range(30)])
    assert 2 <= server.most_busy <= 3


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
    assert base == make_client(key_env=None, concurrency=1, stream=True).key(ask())
    others = [
        make_client(base_url="http://other.example/v1").key(ask()),
        client.key(ask("other")),
        client.key(ask(sample=1)),
        client.key(ask(temperature=0.5)),
        client.key(ask(top_p=0.5)),
        make_client(model="n").key(ask()),
        make_client(extra={"x": 1}).key(ask()),
        make_client(reasoning_tokens=1).key(ask()),
    ]
    assert len({base, *others}) == 9


# Settings and the key -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"base_url": ""}, r"api\.base_url is ''.*http://localhost:8000/v1"),
        ({"base_url": "http://x/v1/chat/completions"}, "leave out /chat/completions, which is added"),
        ({"base_url": "localhost:8000"}, r"api\.base_url"),
        ({"model": ""}, r"api\.model is empty"),
        ({"key_env": "TEST_NO_SUCH_KEY"}, r"variable TEST_NO_SUCH_KEY \(api\.key_env\) is not set"),
    ],
)
def test_missing_settings_are_named(make_client, more, message):
    with pytest.raises(ConfigError, match=message):
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


def test_a_client_waits_as_it_is_asked_to(server, make_client):
    replies = [
        error(429, "slow down", Retry_After_Ms="40500"),
        error(429, "Rate limit reached. Please try again in 1m26.5s."),
        error(429, "Please retry in 38.5s."),
        Reply(429, json.dumps({"error": {"message": "x", "metadata": {"retry_after_seconds": 50}}}).encode()),
        error(429, "Please try again in 648ms."),
        completion("yes"),
    ]
    server.reply = lambda body, number: replies[number - 1]
    client = make_client(retries=9, backoff=0.0)
    assert texts(client.ask([ask()])) == ["yes"]
    assert client.waits == [40.5, 86.5, 38.5, 50.0, 0.648]
    server.reply = lambda body, number: error(429, "Please try again in 5 minutes and 1 second.")
    with pytest.raises(
        ApiError, match=r"asks to wait 301 s, api\.max_wait is 300 s \(status 429: Please try"
    ):
        client.ask([ask("other")])
