"""Guided answers from servers of text: how they are asked for, and what is made of the answer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from repro_rl.errors import ConfigError
from repro_rl.policy import SamplingSettings
from repro_rl.policy.http import HttpPolicy
from repro_rl.text import PromptBuilder, TextFormat, parse_reflection
from support.api_server import completion

PROMPTS = PromptBuilder(TextFormat("full", think="off"), guided=True)
FORMS = [PROMPTS.reflection_form(steps) for steps in (2, 3)]
KEYS = np.array([1, 2], dtype=np.uint64)
SETTINGS = SamplingSettings(90, 0.4)

ASKED = {
    "structured_outputs": lambda form: {"structured_outputs": {"regex": form.regex()}},
    "guided_regex": lambda form: {"guided_regex": form.regex()},
    "grammar": lambda form: {"grammar": form.grammar()},
}


@pytest.mark.parametrize("how", ASKED)
def test_a_server_is_asked_for_the_pattern_of_each_answer(server, make_client, how):
    answers = {"two": FORMS[0].render([5, 100]), "three": FORMS[1].render([0, 0, 7])}
    server.reply = lambda body, number: completion(answers[body["messages"][0]["content"]])
    policy = HttpPolicy(make_client(guided=how))
    done = policy.generate(["two", "three"], KEYS, SETTINGS, FORMS)
    assert [
        parse_reflection(d.text, PROMPTS.fmt, len(f)).values for d, f in zip(done, FORMS, strict=True)
    ] == [
        (5, 100),
        (0, 0, 7),
    ]
    bodies = {body["messages"][0]["content"]: body for body in server.bodies}
    for name, form in zip(("two", "three"), FORMS, strict=True):
        assert ASKED[how](form).items() <= bodies[name].items()


def test_an_object_of_the_schema_is_written_out(server, make_client):
    content = {"two": '{"step_1": 5, "step_2": 100}', "three": '{"step_1": 5}'}
    server.reply = lambda body, number: completion(content[body["messages"][0]["content"]])
    policy = HttpPolicy(make_client(guided="json_schema"))
    whole, broken = policy.generate(["two", "three"], KEYS, SETTINGS, FORMS)
    assert whole.text == FORMS[0].render([5, 100])
    assert broken.text == content["three"]  # the parser will name what is wrong with it
    assert parse_reflection(broken.text, PROMPTS.fmt, 3).values is None
    formats = [body["response_format"] for body in server.bodies]
    assert {json.dumps(f["json_schema"]["schema"]) for f in formats} == {
        json.dumps(f.schema()) for f in FORMS
    }
    assert all(f["type"] == "json_schema" and f["json_schema"]["strict"] for f in formats)


def test_guided_and_free_answers_are_different_questions(server, make_client):
    server.reply = lambda body, number: completion("guided" if "grammar" in body else "free")
    client = make_client(guided="grammar")
    policy = HttpPolicy(client)
    assert [d.text for d in policy.generate(["a"], KEYS[:1], SETTINGS)] == ["free"]
    assert [d.text for d in policy.generate(["a"], KEYS[:1], SETTINGS, FORMS[:1])] == ["guided"]


def test_conversations_are_guided_too(server, make_client):
    server.reply = lambda body, number: completion(FORMS[0].render([1, 2]) if "grammar" in body else "x")
    session = HttpPolicy(make_client(guided="grammar")).open_chat()
    session.answer([0], ["act"], KEYS[:1], SETTINGS)
    (done,) = session.answer([0], ["judge"], KEYS[:1], SETTINGS, FORMS[:1])
    assert done.text == FORMS[0].render([1, 2])
    assert [m["content"] for m in server.bodies[-1]["messages"]] == ["act", "x", "judge"]
    assert "grammar" in server.bodies[-1]


def test_a_server_without_a_way_is_an_error_before_it_is_asked(server, make_client):
    policy = HttpPolicy(make_client())
    with pytest.raises(ConfigError, match=r"api\.guided is 'off'.*Set api\.guided to it \(json_schema"):
        policy.generate(["a"], KEYS[:1], SETTINGS, FORMS[:1])
    assert server.calls == 0
