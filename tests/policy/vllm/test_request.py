"""Requests to vLLM, and completions made of its answers."""

from __future__ import annotations

import json

import pytest

from repro_rl.policy.base import AnswerTokens, SamplingSettings
from repro_rl.policy.transport import PassingError
from repro_rl.policy.vllm.request import completion_of, fitting, sampling_fields
from repro_rl.policy.vllm.server import read_completion
from repro_rl.random_streams import name_key
from support.vllm_server import GREEDY


def test_an_answer_is_read_by_hand(policy):
    text = policy.codec
    eos = min(text.eos_ids)
    choice = {"token_ids": [5, eos], "logprobs": {"token_logprobs": [-0.5, -1.5]}, "finish_reason": "stop"}
    done = read_completion(json.dumps({"choices": [choice]}).encode(), text, (3, 4))
    assert (done.prompt_ids, done.token_ids, done.finished) == ((3, 4), (5, eos), True)
    assert done.logprobs.tolist() == [-0.5, -1.5]
    assert done.entropy == 1.0  # (0.5 + 1.5) / 2
    assert done.text == text.decode((5,))
    wrong = json.dumps({"choices": [choice | {"logprobs": {"token_logprobs": [-0.5]}}]}).encode()
    with pytest.raises(PassingError, match="2 token ids and 1 log-probs"):
        read_completion(wrong, text, (3,))
    with pytest.raises(ValueError, match="vocabulary"):
        completion_of(text, (3,), [-1], [0.0])


def test_seeds_differ_and_fit_in_63_bits():
    keys = [name_key("seed", i) for i in range(1000)]
    allowed = AnswerTokens(frozenset({1}), limit=5, size=5)
    seeds = {sampling_fields(GREEDY, key, allowed)["seed"] for key in keys}
    assert len(seeds) == 1000
    assert max(seeds) < 1 << 63


def test_the_fields_of_a_request_by_hand():
    tokens = AnswerTokens(frozenset({4, 1}), limit=7, size=9, holes=(2,))
    fields = sampling_fields(SamplingSettings(5, 0.7, top_p=0.9), 7, tokens)
    assert fields == {
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": 3,
        "logprobs": 0,
        "stop_token_ids": [1, 4],
        "ignore_eos": True,
        "logit_bias": {2: -100.0, 7: -100.0, 8: -100.0},
    }
    del fields["logit_bias"]  # of a guided token, only the allowed ids can be sampled
    allowed = sampling_fields(SamplingSettings(5, 0.7, top_p=0.9), 7, tokens, (3, 5))
    assert allowed == fields | {"allowed_token_ids": [3, 5]}


def test_an_answer_has_the_room_that_the_prompt_leaves():
    settings = SamplingSettings(5, 0.7, top_p=0.9)
    assert fitting((3,) * 7, settings, 12) is settings
    assert fitting((3,) * 8, settings, 12) == SamplingSettings(4, 0.7, top_p=0.9)


def test_ids_without_a_token_get_the_lowest_bias():
    allowed = AnswerTokens(frozenset({1, 4}), limit=7, size=9, holes=(2,))
    fields = sampling_fields(GREEDY, 1, allowed)
    assert fields["logit_bias"] == {2: -100.0, 7: -100.0, 8: -100.0}
    assert fields["stop_token_ids"] == [1, 4]
    assert "logit_bias" not in sampling_fields(GREEDY, 1, AnswerTokens(frozenset({1}), limit=9, size=9))
