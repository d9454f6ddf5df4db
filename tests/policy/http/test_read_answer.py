"""Answers as servers write them."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, strategies as st

from repro_rl.policy.http import Answer
from repro_rl.policy.http.completion import read_answer
from repro_rl.policy.transport import PassingError, RefusedAll, RefusedPrompt
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
