"""Guided answers from a vLLM server: requests of one token that name what it may be."""

from __future__ import annotations

import json

import pytest
import torch

from repro_rl.errors import ApiError, ConfigError
from repro_rl.policy import SamplingSettings
from repro_rl.text import GuidedText
from support.api_server import Reply, error
from support.models import forward_logprobs, keys_of, perturb
from support.real_vllm import FORMS, GUIDED_PROMPTS, check_guided

SETTINGS = SamplingSettings(12, 0.8)


def test_answers_are_complete_and_have_the_trainers_log_probs(make, policy):
    check_guided(make(), policy)


def test_every_sampled_token_is_a_request_that_names_what_it_may_be(make, server, policy):
    sampler = make()
    server.forget()
    (done,) = sampler.generate(GUIDED_PROMPTS[:1], keys_of(1), SETTINGS, FORMS[:1])
    bodies = [body for body in server.bodies if "allowed_token_ids" in body]
    assert len(bodies) == done.sampled == len(FORMS[0])
    sampled = [at for at, choices in enumerate(done.allowed) if len(choices) > 1]
    for at, body in zip(sampled, bodies, strict=True):
        assert body["prompt"] == [*done.prompt_ids, *done.token_ids[:at]]
        assert (body["max_tokens"], body["temperature"]) == (1, 0.8)
        assert body["allowed_token_ids"] == list(done.allowed[at])
    assert len({body["seed"] for body in bodies}) == len(bodies)


def test_another_token_than_was_allowed_is_not_taken(make, server, policy):
    sampler = make()
    (other,) = policy.codec.plain_ids("up")

    def spoil(path, body, number):
        if path != "/v1/completions":
            return None
        choice = json.loads(server._complete(body).data)["choices"][0] | {"token_ids": [other]}
        return Reply(data=json.dumps({"choices": [choice]}).encode())

    server.fail = spoil
    with pytest.raises(ApiError, match=rf"token {other} is not one of the allowed_token_ids"):
        sampler.generate(GUIDED_PROMPTS[:1], keys_of(1), SETTINGS, FORMS[:1])


def test_prompts_that_leave_too_few_tokens_are_data(make, server):
    sampler = make()
    long, fine = sampler.generate(["a " * 198, "a"], keys_of(2), SETTINGS, FORMS[:2])
    assert "the prompt has 198 tokens" in long.error
    assert fine.error is None
    server.fail = lambda path, body, number: (
        error(400, "maximum context length is 10 tokens") if path == "/v1/completions" else None
    )
    [refused] = sampler.generate(["a b"], keys_of(1), SETTINGS, FORMS[:1])
    assert "maximum context length" in refused.error
    assert refused.prompt_ids == sampler.codec.encode("a b")


def test_conversations_are_guided_too(make, policy):
    session = make().open_chat()
    first = session.answer([0, 1], ["a", "b c"], keys_of(2, "first"), SamplingSettings(2))
    done = session.answer([0, 1], ["up", "down"], keys_of(2, "second"), SETTINGS, FORMS[:2])
    for before, completion, form in zip(first, done, FORMS, strict=False):
        assert completion.finished
        assert len(completion.text.split()) == 2 * len(form)
        ids = (*before.prompt_ids, *before.token_ids, *completion.prompt_ids)
        logp = torch.from_numpy(forward_logprobs(policy, (*ids, *completion.token_ids), 0.8))
        for at, choices in enumerate(completion.allowed):
            row = torch.log_softmax(logp[len(ids) + at - 1][list(choices)], -1)
            expected = float(row[choices.index(completion.token_ids[at])])
            assert completion.logprobs[at] == pytest.approx(expected, abs=1e-4)


def test_a_new_set_of_weights_is_asked_for_all_over_again(make, policy, server):
    sampler = make()
    perturb(policy, 7)
    sampler.weights_changed()
    check_guided(sampler, policy)


def test_a_form_that_the_tokenizer_cannot_write_is_an_error(make):
    with pytest.raises(ConfigError, match="no token for a number alone"):
        make().generate(["a"], keys_of(1), SETTINGS, [GuidedText(("step ", ""), (0, 1, 2))])
