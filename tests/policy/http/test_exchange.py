"""Answers as servers write them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from hypothesis import given, strategies as st

from repro_rl.policy.http import Answer
from repro_rl.policy.http.exchange import (
    ApiKey,
    PassingError,
    RefusedAll,
    RefusedPrompt,
    fetch,
    open_client,
    read_answer,
)
from support.api_server import Reply, completion


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
    # More tokens than 64 bits hold could not be read again from the store.
    assert read(completion("four", usage=(10**19, 2**63))) == Answer("four", "stop", 3, 1, 0, True)
    assert read(completion("hi", usage=(2**40, 5))) == Answer("hi", "stop", 2**40, 5)
    assert read(completion("a\ud800b")).text == "a?b"
    assert read(Reply(data=b"\n\n\n" + completion("late").data)).text == "late"


def test_reasoning_tokens_as_the_server_counts_them():
    data = json.loads(completion("hi", usage=(7, 90)).data)
    data["usage"]["completion_tokens_details"] = {"reasoning_tokens": 80}
    assert read(Reply(data=json.dumps(data).encode())) == Answer("hi", "stop", 7, 90, 80)


@pytest.mark.parametrize("dripping", ["headers", "body"])
def test_the_time_limit_is_of_the_whole_call(dripping):
    """The server sends a byte every tenth of a second, for 20 s."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        connection.recv(1 << 16)
        begin = b"HTTP/1.1 200 OK\r\nX-Slow: "
        if dripping == "body":
            begin += b"1\r\nContent-Length: 999\r\n\r\n"
        with contextlib.suppress(OSError):
            connection.sendall(begin)
            for _ in range(200):
                connection.sendall(b"a")
                if ended.wait(0.1):
                    break
        connection.close()

    server = threading.Thread(target=drip, daemon=True)
    server.start()
    begin = time.monotonic()
    try:
        with open_client(ApiKey(), 1.0, 1) as client, pytest.raises(PassingError, match=r"answer within 1 s"):
            fetch(client, f"http://127.0.0.1:{listening.getsockname()[1]}/", {}, 1.0)
        assert 1.0 <= time.monotonic() - begin < 15
    finally:
        ended.set()
        server.join(10)
        listening.close()


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
    with contextlib.suppress(PassingError, RefusedAll, RefusedPrompt):
        assert isinstance(read_answer(json.dumps(value).encode(), {}).text, str)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_named_error(data):
    with pytest.raises(PassingError):
        read_answer(data, {})
