"""A chat completion as an Answer: its text, or why it has none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.event_stream import is_stream, read_lines, read_stream
from repro_rl.policy.transport.error_body import ErrorBody, error_of, looks_like_page, one_line, page_text
from repro_rl.policy.transport.refusals import PassingError, refusal

MOST_TOKENS = 1 << 40  # of one answer; sums of millions of them still fit 64 bits
QUOTED = 300  # characters of a reasoning or a tool call that a reason quotes

# How servers say why an answer ended, in OpenAI's words. Others stay as they are.
FINISH = {
    "stop": ("end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed", "done", "normal"),
    "length": (
        *("max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
        *("max_length", "token_limit", "context_length", "incomplete"),
    ),
    "content_filter": (
        *("content_filtered", "safety", "recitation", "prohibited_content", "blocklist", "spii"),
        *("sensitive", "guardrail_intervened", "filtered", "image_safety", "moderation", "language"),
    ),
    "refusal": ("refused",),
    "tool_calls": (
        *("tool_call", "tool_use", "function_call", "function_calling", "function_call_filter"),
        *("malformed_function_call", "unexpected_tool_call", "malformed_tool_use", "too_many_tool_calls"),
    ),
    "error": (
        *("network_error", "insufficient_system_resource", "abort", "aborted", "cancelled", "timeout"),
        *("malformed_response", "unavailable"),
    ),
}
OPENAI_FINISH = {word: name for name, words in FINISH.items() for word in (name, *words)}


def read_answer(data: bytes, body: Mapping[str, Any]) -> Answer:
    """The answer in a chat completion, which may be an event stream.

    An answer without text is an answer too: it was paid for, and ``cause`` says why it is empty. Raises
    PassingError naming what is wrong with the shape, or the error that the answer holds (see ``refusal``).
    """
    content = _content(data)
    choice = _choice(content)
    try:
        message = choice.get("message") or choice.get("delta") or {}
        text, thoughts = _texts(message)
        counted = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
        thoughts = thoughts or (counted if isinstance(counted, str) else json.dumps(counted or ""))
        thoughts = "" if thoughts == '""' else thoughts
        said = _refusal_text(message)
        calls = message.get("tool_calls") or message.get("function_call")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _shapeless(error) from error
    finish = _finish(choice)
    if finish == "error":
        reason = f"the server broke off (finish_reason {choice.get('finish_reason')})"
        raise PassingError(reason, cause="cut")
    # JSON may hold half a character, which no file can.
    text = text.encode(errors="replace").decode()
    answer = _counted(text, thoughts, finish, content.get("usage"), body)
    if text.strip():
        return answer
    thought = thoughts or (answer.reasoning_tokens and f"{answer.reasoning_tokens} tokens")
    cause, reason = _lost(finish, choice, said, calls, thought)
    return answer.without_text(cause, one_line(reason).encode(errors="replace").decode())


def _content(data: bytes) -> dict[str, Any]:
    """The parsed answer. Raises the error that it holds."""
    if is_stream(data):
        content: Any = read_stream(data)
    else:
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            content = read_lines(data)
            if content is None:
                raise _no_json(data, error) from error
    if isinstance(content, list) and content and isinstance(content[0], dict) and "error" in content[0]:
        raise refusal(200, error_of(content))
    if not isinstance(content, dict):
        raise _shapeless(TypeError(f"it is {type(content).__name__}"))
    if content.get("error") or content.get("type") == "error" or content.get("object") == "error":
        raise refusal(200, error_of(content))
    status = content.get("base_resp")  # MiniMax
    if isinstance(status, dict) and status.get("status_code"):
        raise refusal(200, error_of(status))
    if not content.get("choices"):
        raise _no_choices(content)
    return content


def _no_json(data: bytes, error: Exception) -> PassingError:
    text = data.decode(errors="replace").strip("\ufeff \r\n\t")
    if looks_like_page(text):
        return PassingError(f"the answer is {page_text(text)}: api.base_url may be wrong", cause="unreadable")
    cause = "cut" if text.startswith("{") or not text else "unreadable"
    return PassingError(f"the answer is not JSON ({error}): {one_line(text, QUOTED)!r}", cause=cause)


def _no_choices(content: dict[str, Any]) -> Exception:
    """What an answer without choices means: a filter, a message of the server, or nothing known."""
    feedback = content.get("promptFeedback") or content.get("prompt_feedback")
    if feedback:
        return refusal(400, ErrorBody(["content_filter"], [json.dumps(feedback)]))
    body = error_of({name: value for name, value in content.items() if name != "choices"})
    if body.messages:
        return refusal(200, body)
    found = "is empty" if "choices" in content else "is missing"
    return PassingError(
        f"the answer has not the shape of a chat completion ('choices' {found})", cause="unreadable"
    )


def _shapeless(error: Exception) -> PassingError:
    shape = f"{type(error).__name__} {error}"
    return PassingError(f"the answer has not the shape of a chat completion ({shape})", cause="unreadable")


def _choice(content: dict[str, Any]) -> dict[str, Any]:
    """The first choice. Raises the error that it holds, and PassingError without a message."""
    try:
        choice = content["choices"][0]
        if choice.get("error"):
            raise refusal(200, error_of(choice["error"]))
        message = choice.get("message") if choice.get("message") is not None else choice.get("delta")
        if message is None and _finish(choice) not in ("content_filter", "refusal", "tool_calls", "length"):
            raise KeyError("message")
        if message is not None and not isinstance(message, dict):
            raise TypeError("message is not an object")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _shapeless(error) from error
    return dict(choice)


def _finish(choice: Mapping[str, Any]) -> str:
    """Why the answer ended, in OpenAI's words; such as "content_filter: PROHIBITED_CONTENT" at Gemini's."""
    reported = str(choice.get("finish_reason") or choice.get("stop_reason") or "stop")
    word = reported.lower().partition(":")[0].strip()
    return OPENAI_FINISH.get(word, reported)


def _texts(message: Mapping[str, Any]) -> tuple[str, str]:
    """Text and reasoning of a message whose content is a text, or parts as some servers give them."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise TypeError("content is not a text")
    texts, thoughts = [], []
    for part in content:
        kind = part.get("type", "text")
        if kind in ("text", "output_text"):
            texts.append(part["text"])
        elif kind in ("thinking", "reasoning"):
            thoughts.append(json.dumps(part.get(kind) or part.get("text") or ""))
    return "".join(texts), "".join(thoughts)


def _refusal_text(message: Mapping[str, Any]) -> str:
    said = message.get("refusal")
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        said = said or part.get("refusal")
    return said if isinstance(said, str) else ""


def _lost(
    finish: str, choice: Mapping[str, Any], said: str, calls: Any, thoughts: str | int
) -> tuple[str, str]:
    """Cause and reason of an answer without text, by what it has instead."""
    ended = f"finish_reason {choice.get('finish_reason')}"
    if said or finish == "refusal":
        return "refused", said or ended
    if finish == "content_filter":
        filters = choice.get("content_filter_results") or choice.get("content_filter_result")
        return "filtered", f"{ended} {json.dumps(filters)[:QUOTED]}" if filters else ended
    if calls or finish == "tool_calls":
        return "tool_call", f"{ended}, {json.dumps(calls)[:QUOTED]}" if calls else ended
    if thoughts:
        limit = (
            "; the token limit was used up (api.reasoning_tokens adds to it)" if finish == "length" else ""
        )
        return "reasoning_only", f"{ended}{limit}; the reasoning: {str(thoughts)[:QUOTED]!r}"
    if finish == "length":
        return (
            "cut",
            f"{ended}; the token limit was used up, and no text came (api.reasoning_tokens adds to it)",
        )
    return "empty", ended


def _counted(text: str, thoughts: str, finish: str, usage: Any, body: Mapping[str, Any]) -> Answer:
    """The answer with the tokens that the server counted, or about four characters a token."""
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("completion_tokens_details")
    thought = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    prompt_characters = sum(len(str(part.get("content"))) for part in body.get("messages", ()))
    return Answer(
        text=text,
        finish=finish,
        prompt_tokens=_estimate(prompt_characters) if prompt is None else prompt,
        completion_tokens=_estimate(len(text) + len(thoughts)) if completion is None else completion,
        reasoning_tokens=(_estimate(len(thoughts)) if thoughts else 0) if thought is None else thought,
        estimated=prompt is None or completion is None,
    )


def _count(value: Any) -> int | None:
    """A server's count; None for what cannot be one, which a stored answer could not hold either."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def _estimate(characters: int) -> int:
    return -(-characters // 4)
