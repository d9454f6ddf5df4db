"""What is sent to a chat-completions server, and the key that an answer is stored by."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from repro_rl.config import ApiSection
from repro_rl.errors import ConfigError, unencodable
from repro_rl.policy.transport.refusals import RefusedPrompt
from repro_rl.text.guided import GuidedText

STREAMING = ("stream", "stream_options")  # how an answer comes; they change nothing in it
UNGUIDED = (
    "prompt.reflect_form is 'guided', but api.guided is 'off': only some servers can hold an answer to a "
    "form. Set api.guided to it (json_schema, structured_outputs, guided_regex or grammar), "
    "or prompt.reflect_form=free."
)


@dataclass(frozen=True, slots=True)
class Question:
    """One chat completion to ask for. Equal questions are asked once."""

    messages: tuple[tuple[str, str], ...]  # (role, content)
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    sample: int = 0  # tells repeated samples of one prompt apart; 0 <= sample < 2**64
    form: GuidedText | None = None  # what is given of the answer; None: nothing


def check_sendable(question: Question) -> None:
    """Raise RefusedPrompt for a text that no request can hold."""
    for number, (role, text) in enumerate(question.messages, start=1):
        problem = unencodable(text)
        if problem is not None:
            raise RefusedPrompt(
                f"message {number} ({role}) was not sent: it holds {problem}, which is no character",
                "unsendable",
            )


def form_fields(form: GuidedText, how: str) -> dict[str, Any]:
    """The fields of a request that hold its answer to ``form``; ``how``: see ``api.guided``.

    Raises ConfigError for "off".
    """
    match how:
        case "json_schema":
            schema = {"name": "progress", "strict": True, "schema": form.schema()}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "structured_outputs":
            return {"structured_outputs": {"regex": form.regex()}}
        case "guided_regex":
            return {"guided_regex": form.regex()}
        case "grammar":
            return {"grammar": form.grammar()}
    raise ConfigError(UNGUIDED)


def request_body(section: ApiSection, question: Question) -> dict[str, Any]:
    """The JSON of a request, without streaming unless ``api.extra`` asks for it."""
    begin = () if section.system is None else (("system", section.system),)
    body: dict[str, Any] = {
        "model": section.model,
        "messages": [{"role": role, "content": content} for role, content in (*begin, *question.messages)],
        "temperature": question.temperature,
        section.limit_field: question.max_tokens + section.reasoning_tokens,
    }
    if question.top_p != 1.0:
        body["top_p"] = question.top_p
    if section.send_seed:
        body["seed"] = question.sample % (1 << 31)  # servers want a small positive integer
    if question.form is not None:
        body |= form_fields(question.form, section.guided)
    body |= section.extra
    return {name: value for name, value in body.items() if value is not None}


def answer_keys(section: ApiSection, question: Question) -> tuple[str, str]:
    """Two keys, each a sha256 (hex), over all that decides the answer; the second one is of earlier versions.

    Those left out the address, so that their answers could be of another server with such a model.
    """
    body = request_body(section, question)
    greedy = body.get("temperature") == 0 and not section.send_seed
    # Greedy samples of one prompt are one answer: asking again would only cost.
    sample = 0 if greedy else question.sample
    sent = {name: value for name, value in body.items() if name not in STREAMING}
    return (
        _digest({"address": section.base_url, "body": sent, "sample": sample}),
        _digest({"body": body, "sample": sample}),
    )


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
