"""The form of messages that a chat template wants."""

from __future__ import annotations

import pytest

from repro_rl.policy.tokens.chat_template import form_of
from repro_rl.policy.tokens.message_form import PLAIN, MessageForm, continued
from support.chat_families import family_tokenizer

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
# Two of the forms that a template may want, and a template that takes no other.
PARTS = "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}"
DEMANDING = "{% if messages[0].role != 'system' %}{{ raise_exception('system message first') }}{% endif %}"


def test_messages_have_the_form():
    assert PLAIN.messages(TURNS) == TURNS
    a, b = ([{"type": "text", "text": text}] for text in "ab")
    parts = [{"role": "user", "content": a}, {"role": "assistant", "content": b}]
    assert MessageForm(parts=True).messages(TURNS) == parts
    system = {"role": "system", "content": "x"}
    assert MessageForm(system="x").messages(TURNS) == [system, *TURNS]
    assert MessageForm(True, "").messages(TURNS)[0]["content"] == [{"type": "text", "text": ""}]
    assert TURNS[0]["content"] == "a"  # nothing was changed in place


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        ("", "end"),
        ("rules", "rules\n\nend"),
        ([], [{"type": "text", "text": "end"}]),
        ([{"type": "text", "text": ""}], [{"type": "text", "text": "end"}]),
        ([{"type": "image"}], [{"type": "image"}, {"type": "text", "text": "\n\nend"}]),
    ],
)
def test_a_content_keeps_its_form_when_text_is_added(content, whole):
    assert continued(content, "end") == whole


def test_the_form_of_a_tokenizer():
    tokenizer = family_tokenizer("chatml")
    assert form_of(tokenizer) == PLAIN
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ m.content }}", PARTS)
    assert form_of(tokenizer) == MessageForm(parts=True)
    begin = tokenizer.chat_template.index("{% for m in")
    tokenizer.chat_template = DEMANDING + tokenizer.chat_template[begin:]
    assert form_of(tokenizer) == MessageForm(parts=True, system="")
    tokenizer.chat_template = None
    assert form_of(tokenizer) == PLAIN
