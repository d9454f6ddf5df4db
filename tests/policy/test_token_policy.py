"""The base of token policies: prompts and conversations become token ids in one way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from repro_rl.policy import Policy, SamplingSettings, TokenPolicy, load_codec
from repro_rl.policy.token_policy import TokenSession
from repro_rl.types import Completion, Ids
from support.models import keys_of


class Echo(TokenPolicy):
    """Answers with the last token of its prompt and the end of text."""

    def __init__(self, text):
        self.codec = text
        self.prompts: list[Ids] = []

    def generate_ids(self, encoded: Sequence[Ids], keys, settings, forms=None) -> list[Completion]:
        self.prompts += encoded
        return [
            Completion(ids, (ids[-1], 1), np.zeros(2, np.float32), self.codec.decode((ids[-1],)), True)
            for ids in encoded
        ]


@pytest.fixture
def echo(tiny_folder) -> Echo:
    return Echo(load_codec(tiny_folder))


def test_prompts_are_encoded(echo):
    policy: Policy = echo
    done = policy.generate(["a b", "c"], keys_of(2), SamplingSettings(2))
    assert echo.prompts == [echo.codec.encode("a b"), echo.codec.encode("c")]
    assert [c.text for c in done] == ["b", "c"]
    assert policy.generate([], keys_of(0), SamplingSettings(2)) == []
    assert policy.codec.positions == 256


def test_a_conversation_gives_the_policy_everything_again(echo):
    session = echo.open_chat()
    assert isinstance(session, TokenSession)
    (first,) = session.answer([0], ["a b"], keys_of(1), SamplingSettings(2))
    (second,) = session.answer([0], ["c"], keys_of(1), SamplingSettings(2))
    a, b, c = (echo.codec.encode(word)[0] for word in "abc")
    assert echo.prompts == [(a, b), (a, b, b, 1, c)]
    assert (first.prompt_ids, second.prompt_ids) == ((a, b), (c,))  # what each turn added
    assert session.used(0) == 7


def test_a_policy_without_generate_ids_cannot_be_made(tiny_folder):
    class Incomplete(TokenPolicy):
        text = load_codec(tiny_folder)

    with pytest.raises(TypeError, match="generate_ids"):
        Incomplete()
