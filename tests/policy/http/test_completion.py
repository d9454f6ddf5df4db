"""Answers without a text, in all their forms, and event streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from repro_rl.policy.http import Answer
from repro_rl.policy.http.completion import read_answer
from repro_rl.policy.http.event_stream import events, is_stream
from repro_rl.policy.transport.refusals import PassingError, RefusedAll, RefusedPrompt
from support.api_server import completion


def read(data: bytes) -> Answer:
    return read_answer(data, {"messages": [{"role": "user", "content": "x" * 10}]})


def chosen(message: Any, finish: Any = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, **more}
    if message is not ...:
        choice["message"] = message
    return json.dumps({"choices": [choice]}).encode()


CALL = [{"id": "1", "type": "function", "function": {"name": "act", "arguments": '{"action": "up"}'}}]
LOST = {
    "only reasoning": (chosen({"content": None, "reasoning_content": "hm"}), "reasoning_only", "hm"),
    "vLLM's name of it": (chosen({"content": None, "reasoning": "hm"}), "reasoning_only", "hm"),
    "reasoning to the limit": (
        chosen({"content": "", "reasoning_content": "hm"}, "length"),
        "reasoning_only",
        "api.reasoning_tokens",
    ),
    "Mistral's parts": (
        chosen({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        "reasoning_only",
        "hm",
    ),
    "a refusal": (chosen({"content": None, "refusal": "I cannot."}), "refused", "I cannot."),
    "a refusing part": (
        chosen({"content": [{"type": "refusal", "refusal": "I cannot."}]}),
        "refused",
        "I cannot.",
    ),
    "Anthropic's refusal": (chosen({"content": ""}, "refusal"), "refused", "finish_reason refusal"),
    "a filter": (chosen({"content": ""}, "content_filter"), "filtered", "content_filter"),
    "Azure's filter": (
        chosen({}, "content_filter", content_filter_results={"hate": {"filtered": True}}),
        "filtered",
        "hate",
    ),
    "Gemini's filter": (chosen(..., "content_filter: PROHIBITED_CONTENT"), "filtered", "PROHIBITED_CONTENT"),
    "Gemini's recitation": (chosen({"content": None}, "RECITATION"), "filtered", "RECITATION"),
    "Zhipu's filter": (chosen({"content": ""}, "sensitive"), "filtered", "sensitive"),
    "a tool call": (chosen({"content": None, "tool_calls": CALL}, "tool_calls"), "tool_call", "act"),
    "a function call": (
        chosen({"content": None, "function_call": {"name": "act"}}, "function_call"),
        "tool_call",
        "act",
    ),
    "Gemini's broken call": (
        chosen(..., "function_call_filter: MALFORMED_FUNCTION_CALL"),
        "tool_call",
        "MALFORMED",
    ),
    "nothing": (chosen({"content": ""}), "empty", "finish_reason stop"),
    "white space": (chosen({"content": "\n\n "}), "empty", "finish_reason stop"),
    "nothing to the limit": (chosen({"content": ""}, "length"), "cut", "token limit"),
    "a full context": (chosen({"content": ""}, "model_length"), "cut", "model_length"),
}


@pytest.mark.parametrize(("data", "cause", "reason"), LOST.values(), ids=LOST)
def test_an_answer_without_text_says_why(data, cause, reason):
    answer = read(data)
    assert (answer.text.strip(), answer.cause) == ("", cause)
    assert reason in answer.reason


def test_a_text_is_an_answer_whatever_else_comes_with_it():
    both = read(chosen({"content": "up", "tool_calls": CALL, "reasoning_content": "hm"}, "tool_calls"))
    assert (both.text, both.cause, both.whole) == ("up", "", True)
    assert not read(chosen({"content": "half"}, "content_filter")).whole
    assert not read(chosen({"content": "half"}, "MAX_TOKENS")).whole
    for word in ("end_turn", "eos_token", "COMPLETE", None, "OTHER"):
        assert read(chosen({"content": "up"}, word)).whole


BROKEN = {
    "DeepSeek": chosen({"content": "hal"}, "insufficient_system_resource"),
    "Zhipu": chosen({"content": ""}, "network_error"),
    "SGLang": chosen({"content": "hal"}, "abort"),
    "OpenRouter": chosen({"content": ""}, "error", error={"code": 502, "message": "Provider returned error"}),
    "an error without a status": b'{"error": {"message": "upstream"}}',
    "an overloaded one": b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
    "MiniMax, busy": b'{"choices": null, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}',
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_server_that_breaks_off_is_asked_again(data):
    with pytest.raises(PassingError):
        read(data)


def test_errors_inside_a_200():
    with pytest.raises(RefusedAll, match=r"the answer holds an error: Insufficient credits \(code 402\)"):
        read(b'{"error": {"code": 402, "message": "Insufficient credits"}}')
    with pytest.raises(RefusedAll, match="bad"):
        read(b'[{"error": {"code": 400, "message": "bad"}}]')
    for data, cause in (
        (b'{"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}}', "too_long"),
        (b'{"choices": null, "base_resp": {"status_code": 1026, "status_msg": "input"}}', "filtered"),
        (b'{"promptFeedback": {"blockReason": "SAFETY"}}', "filtered"),
        (chosen({}, "error", error={"code": 400, "message": "prompt is too long: 3 > 2 tokens"}), "too_long"),
    ):
        with pytest.raises(RefusedPrompt) as caught:
            read(data)
        assert caught.value.cause == cause


@pytest.mark.parametrize(
    ("data", "words", "cause"),
    [
        (
            b"<!DOCTYPE html><title>llama.cpp</title>",
            "a web page: llama.cpp: api.base_url may be wrong",
            "unreadable",
        ),
        (b'{"choices": [{"message": {"content": "a', "not JSON", "cut"),
        (b"", "not JSON", "cut"),
        (b"OK", "not JSON", "unreadable"),
        (b'{"object": "list", "data": []}', "not the shape .*'choices' is missing", "unreadable"),
        (b'{"choices": []}', "not the shape .*'choices' is empty", "unreadable"),
    ],
)
def test_what_is_no_chat_completion_says_what_it_is(data, words, cause):
    with pytest.raises(PassingError, match=words) as caught:
        read(data)
    assert caught.value.cause == cause


# Event streams ------------------------------------------------------------------------------------


def stream(
    *deltas: Any, finish: str | None = "stop", usage: Any = None, end: str = "\n\n", done: bool = True
) -> bytes:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        chunks.append({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    lines = [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if done else [])
    return "".join(f"data: {line}{end}" for line in lines).encode()


TEXT = ({"role": "assistant", "content": ""}, {"content": "push "}, {"content": "up"})
STREAMS = {
    "OpenAI": stream(*TEXT),
    "without an end": stream(*TEXT, done=False),
    "without a finish": stream(*TEXT, finish=None),
    "carriage returns": stream(*TEXT, end="\r\n\r\n"),
    "one line an event": stream(*TEXT, end="\n"),
    "no empty line at the end": stream(*TEXT).rstrip(b"\n"),
    "DeepSeek's comments": b": keep-alive\n\n: keep-alive\n\n" + stream(*TEXT),
    "OpenRouter's comments": b": OPENROUTER PROCESSING\n\n" + stream(*TEXT),
    "events and ids": b"\n\nretry: 10\nevent: chunk\nid: 1\n" + stream(*TEXT),
    "a byte order mark": b"\xef\xbb\xbf" + stream(*TEXT),
    "no space": stream(*TEXT).replace(b"data: ", b"data:"),
    "Azure's first event": b'data: {"choices": [], "prompt_filter_results": []}\n\n' + stream(*TEXT),
    "a whole message": b'data: {"choices": [{"message": {"content": "push up"}, "finish_reason": "stop"}]}\n',
    "lines of JSON": stream(*TEXT, done=False).replace(b"data: ", b""),
    "two choices": stream(*TEXT).replace(
        b"data: [DONE]", b'data: {"choices": [{"index": 1, "delta": {"content": "x"}}]}\n\ndata: [DONE]'
    ),
}


@pytest.mark.parametrize("data", STREAMS.values(), ids=STREAMS)
def test_an_event_stream_adds_up_to_an_answer(data):
    answer = read(data)
    assert (answer.text, answer.finish, answer.cause) == ("push up", "stop", "")


def test_what_else_comes_in_a_stream():
    assert read(stream(*TEXT, usage=(7, 90))) == Answer("push up", "stop", 7, 90)
    thinker = read(stream({"reasoning_content": "h"}, {"reasoning_content": "m"}, finish="length"))
    assert (thinker.cause, "'hm'" in thinker.reason) == ("reasoning_only", True)
    assert read(stream({"refusal": "I "}, {"refusal": "cannot."})).reason == "I cannot."
    assert read(stream(finish="content_filter")).cause == "filtered"
    first = {"tool_calls": [{"index": 0, "function": {"name": "act", "arguments": ""}}]}
    rest = {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    call = read(stream(first, rest, finish="tool_calls"))
    assert (call.cause, '"name": "act", "arguments": "{}"' in call.reason) == ("tool_call", True)


def test_a_stream_that_breaks_off_is_asked_again():
    whole = stream(*TEXT)
    for cut in (whole[:-60], whole[:40], b"data: ", b": keep-alive\n\n", b"data: [DONE]\n\n"):
        with pytest.raises(PassingError) as caught:
            read(cut)
        assert caught.value.cause in ("cut", "unreadable")


def test_errors_inside_a_stream():
    """SGLang answers 200 with an error as its only event; OpenRouter breaks off with one."""
    words = "Requested token count exceeds the model's maximum context length of 8 tokens."
    sglang = {"error": {"object": "error", "message": words, "type": "BadRequestError", "code": 400}}
    with pytest.raises(RefusedPrompt, match="maximum context length"):
        read(f"data: {json.dumps(sglang)}\n\ndata: [DONE]\n\n".encode())
    broken = {
        "error": {"code": 502, "message": "Provider disconnected"},
        "choices": [{"finish_reason": "error"}],
    }
    with pytest.raises(PassingError, match="Provider disconnected"):
        read(stream(*TEXT, finish=None, done=False) + f"data: {json.dumps(broken)}\n\n".encode())
    with pytest.raises(RefusedAll, match="quota"):
        read(b'event: error\ndata: {"error": {"code": "insufficient_quota", "message": "no quota"}}\n\n')


def test_what_a_stream_is():
    assert is_stream(b"\n data: {}")
    assert is_stream(b": ping\n")
    assert not is_stream(completion("data: x").data)
    assert not is_stream(b"<html>data:")
    assert list(events(b"data: a\ndata: b\n\nid: 1\n\ndata: c")) == ["a\nb", "c"]


@given(st.lists(st.text(max_size=6), max_size=5), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_text_comes_through_a_stream(parts, line):
    data = stream(*({"content": part} for part in parts), end=line * 2)
    assert read(data).text == "".join(parts).encode(errors="replace").decode()
