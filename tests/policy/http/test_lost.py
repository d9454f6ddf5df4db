"""The client against servers that lose prompts, answer nothing, or stream only."""

from __future__ import annotations

import json
import sqlite3

import pytest

from repro_rl.errors import ApiError
from repro_rl.policy.http import Answer, Failure
from repro_rl.policy.http.request import answer_keys
from repro_rl.policy.http.usage import loss_lines, usage_line
from support import server_words as words
from support.api_questions import ask, texts
from support.api_server import Reply, completion, error
from support.server_words_long import TOO_LONG


def sent(row) -> Reply:
    body = row[2] if isinstance(row[2], str) else json.dumps(row[2])
    return Reply(row[1], body.encode())


def streamed(text: str) -> Reply:
    chunks = [{"choices": [{"delta": {"content": part}}]} for part in (text[:1], text[1:])]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return Reply(data=f"{lines}data: [DONE]\n\n".encode(), headers={"Content-Type": "text/event-stream"})


def test_what_was_lost_is_counted_by_cause_and_named(server, make_client):
    replies = {
        "long": sent(TOO_LONG[0]),
        "bad": sent(words.FILTERED[5]),
        "think": completion(None, reasoning_content="hm"),
        "think more": completion(None, reasoning_content="hm"),
        "half": completion("half", "length"),
        "gone": error(503, "busy"),
        "good": completion("yes"),
    }
    server.reply = lambda body, number: replies[body["messages"][0]["content"]]
    client = make_client(retries=0)
    results = client.ask([ask(text) for text in replies])
    causes = [result.cause for result in results]
    assert causes == ["too_long", "filtered", "reasoning_only", "reasoning_only", "", "unavailable", ""]
    usage = client.spending.summary()
    assert usage["lost"] == {"filtered": 1, "reasoning_only": 2, "too_long": 1, "unavailable": 1}
    assert (usage["failed"], usage["answers_cut"]) == (3, 1)
    assert usage["reasons"]["filtered"] == "status 400: Content Exists Risk"
    assert (
        "5 questions without a text (1 filtered, 2 reasoning_only, 1 too_long, 1 unavailable)"
        in usage_line(usage)
    )
    assert loss_lines(usage)[0] == (
        "Warning: filtered 1 of 7 questions, 14% (stopped by a content filter): "
        "status 400: Content Exists Risk"
    )
    # What was paid for is kept with its cause, the rest is asked again.
    server.forget()
    again = make_client(retries=0)
    assert [result.cause for result in again.ask([ask(text) for text in replies])] == causes
    assert server.calls == 3
    assert again.spending.summary()["lost"] == usage["lost"]


def test_unknown_words_stop_at_once_until_something_was_answered(server, make_client):
    strange = error(400, "Das geht so nicht")
    server.reply = lambda body, number: (
        strange if "odd" in body["messages"][0]["content"] else completion("yes")
    )
    with pytest.raises(ApiError, match="Das geht so nicht"):
        make_client(concurrency=1).ask([ask("odd"), ask("even")])
    client = make_client(concurrency=1)
    good, odd = client.ask([ask("even"), ask("odd")])
    assert (good.text, odd.cause, odd.refused) == ("yes", "refused", True)
    # The answer in the store says as much: repeated, the same prompt does not stop the command again.
    again = make_client(concurrency=1)
    assert texts(again.ask([ask("even"), ask("odd"), ask("even 2")]))[::2] == ["yes", "yes"]
    with pytest.raises(ApiError, match=r"refused 3 questions in a row.*Das geht so nicht.*api\.give_up"):
        make_client(concurrency=1, give_up=3).ask([ask("even"), *(ask(f"odd {i}") for i in range(5))])
    server.reply = lambda body, number: error(401, "expired")
    with pytest.raises(ApiError, match="status 401: expired"):
        make_client(concurrency=1).ask([ask("even"), ask("new")])


def test_a_server_without_a_single_text_is_given_up(server, make_client):
    server.reply = lambda body, number: completion(None, refusal="I cannot help with that.")
    client = make_client(give_up=3, concurrency=1)
    with pytest.raises(ApiError, match=r"no text as 'm' to any of 3 questions: 3 refused.*I cannot help"):
        client.ask([ask(str(i)) for i in range(10)])
    assert server.calls == 3
    server.reply = lambda body, number: sent(TOO_LONG[0])
    client = make_client(give_up=3)
    assert all(isinstance(result, Failure) for result in client.ask([ask(f"long {i}") for i in range(10)]))
    with pytest.raises(ApiError, match=r"any of 10 questions: 10 too_long.*maximum context length is 4096"):
        client.check()
    server.reply = lambda body, number: completion("yes")
    client.ask([ask("short")])
    client.check()


def test_the_order_of_stored_answers_does_not_give_up(server, make_client):
    """In the order of the questions three answers without a text come first. The server gave a text first."""
    empty = completion(None, reasoning_content="hm")
    server.reply = lambda body, number: (
        completion("yes") if body["messages"][0]["content"] == "last" else empty
    )
    questions = [*(ask(str(i)) for i in range(3)), ask("last")]
    make_client(give_up=3, concurrency=1).ask(questions[::-1])
    again = make_client(give_up=3, concurrency=1)
    assert [result.cause for result in again.ask(questions)] == ["reasoning_only"] * 3 + [""]
    assert server.calls == 4
    again.check()
    # A command in which the store has no text asks on, and gives up after as many answers of its own.
    server.reply = lambda body, number: empty
    other = make_client(give_up=3, concurrency=1)
    with pytest.raises(ApiError, match="no text as 'm' to any of 6 questions: 6 reasoning_only"):
        other.ask([*questions[:3], *(ask(f"new {i}") for i in range(9))])
    assert server.calls == 4 + 3


def test_the_advice_is_on_the_commonest_cause(server, make_client):
    replies = {"long": sent(TOO_LONG[0])}
    server.reply = lambda body, number: replies.get(
        body["messages"][0]["content"], completion(None, reasoning_content="hm")
    )
    client = make_client(concurrency=1)
    client.ask([ask("long"), ask("a"), ask("b")])
    with pytest.raises(
        ApiError, match=r"2 reasoning_only \(.*\), 1 too_long \(.*\)\..*Raise api\.reasoning_tokens, or turn"
    ):
        client.check()


# Event streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", words.STREAM_ONLY, ids=[row[0] for row in words.STREAM_ONLY])
def test_a_server_that_only_streams_is_asked_for_streams(server, make_client, row):
    server.reply = lambda body, number: streamed("yes") if body.get("stream") else sent(row)
    client = make_client(concurrency=1, retries=0)
    assert texts(client.ask([ask("a"), ask("b"), ask("c")])) == ["yes"] * 3
    assert [body.get("stream") for body in server.bodies] == [None, True, True, True]
    assert server.bodies[-1]["stream_options"] == {"include_usage": True}
    assert client.spending.whole.sent == 4


def test_a_server_that_streams_unasked_is_asked_for_it_from_then_on(server, make_client):
    server.reply = lambda body, number: streamed("yes")
    assert texts(make_client(concurrency=1).ask([ask("a"), ask("b")])) == ["yes"] * 2
    assert [body.get("stream") for body in server.bodies] == [None, True]
    server.forget()
    make_client(stream=False, concurrency=1).ask([ask("c"), ask("d")])
    assert [body.get("stream") for body in server.bodies] == [None, None]


def test_streams_that_are_asked_for(server, make_client):
    """A field that a server does not know is left out; how an answer came changes nothing in its key."""

    def reply(body, number):
        if "stream_options" in body:
            return error(422, "Extra inputs are not permitted: stream_options")
        return streamed("yes") if body.get("stream") else error(400, "temperature must be 1")

    server.reply = reply
    for more, calls in (({"stream": True}, 3), ({"extra": {"stream": True}}, 0)):
        server.forget()
        client = make_client(concurrency=1, **more)
        assert texts(client.ask([ask("a"), ask("b")])) == ["yes"] * 2
        assert server.calls == calls  # the second client finds the answers of the first one
        assert client.key(ask("a")) == make_client().key(ask("a"))
    server.reply = lambda body, number: sent(words.STREAM_ONLY[0])
    with pytest.raises(ApiError, match="only support stream mode"):
        make_client().ask([ask("never")])


# The store ----------------------------------------------------------------------------------------


def test_answers_of_earlier_versions_are_found_and_named(server, make_client, tmp_path):
    client = make_client()
    key, old_key = answer_keys(client.section, ask("a"))
    assert key != old_key
    record = json.dumps({"text": "kept", "finish": "stop", "prompt_tokens": 1, "completion_tokens": 2})
    empty = json.dumps({"text": "", "finish": "tool_calls", "prompt_tokens": 1, "completion_tokens": 2})
    with sqlite3.connect(client.store.path) as db:
        for name, text in ((old_key, record), (answer_keys(client.section, ask("b"))[1], empty)):
            db.execute("INSERT INTO answers VALUES (?, 'm', ?, '2026-01-01')", (name, text))
    kept, called = client.ask([ask("a"), ask("b")])
    assert kept == Answer("kept", "stop", 1, 2)
    assert (called.text, called.cause) == ("", "tool_call")
    assert server.calls == 0
    assert "2 answers stored by an earlier version" in loss_lines(client.spending.summary())[-1]
    # New ones are of one address.
    server.reply = lambda body, number: completion("new")
    client.ask([ask("c")])
    other = make_client(base_url=f"{server.url}/", model="m")
    assert texts(other.ask([ask("c")])) == ["new"]
    elsewhere = make_client(base_url=server.url.replace("127.0.0.1", "localhost"))
    assert texts(elsewhere.ask([ask("c")])) == ["new"]
    assert server.calls == 2
