"""Guided answers: the guide of a tokenizer, and sampling with it through every decoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from repro_rl.errors import ConfigError
from repro_rl.policy import SamplingSettings, TextCodec, TransformersPolicy
from repro_rl.policy.decoding.guided import draw_allowed
from repro_rl.policy.tokens.guide import Cursor, TokenGuide, token_guide
from repro_rl.text import GuidedText, PromptBuilder, TextFormat, parse_reflection
from repro_rl.types import Completion
from support.models import forward_logprobs, keys_of, load_cpu, network
from support.scripted import word_codec
from support.toy_tokenizers import KINDS

FULL = PromptBuilder(TextFormat("full", think="off"), guided=True)
COMPACT = PromptBuilder(TextFormat("compact"), resolution=50, guided=True)
WORDS = {*COMPACT.words(9), *"abcd"}


@cache
def codec(kind: str) -> TextCodec:
    return KINDS[kind]()


def form_of(prompts: PromptBuilder, steps: int) -> GuidedText:
    form = prompts.reflection_form(steps)
    assert form is not None
    return form


# The guide ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_spelled_as_the_tokenizer_does(kind: str) -> None:
    text, form = codec(kind), form_of(FULL, 3)
    guide = token_guide(text, form)
    assert token_guide(text, form) is guide
    assert sorted(guide.spellings) == list(range(101))
    for value in range(101):
        values = [value, 100 - value, 7]
        ids, allowed = guide.encode(values)
        assert ids == text.encode_target(FULL.reflection_target(values))
        assert len(ids) == len(allowed) <= guide.longest
        assert all(token in ids_then for token, ids_then in zip(ids, allowed, strict=True))
        assert ids[-1] == text.end_id
        parsed = parse_reflection(text.decode(ids), FULL.fmt, 3)
        assert parsed.values == tuple(values)


def test_what_is_sampled_by_hand() -> None:
    """Digit by digit: 0 and 100 leave no choice behind them, 10 does, and a line break ends a number."""
    text, form = codec("digit by digit"), form_of(FULL, 2)
    guide = token_guide(text, form)
    digits = [text.plain_ids(str(digit))[0] for digit in range(10)]
    end = text.plain_ids("\n")[0]

    def chosen(value: int) -> list[int]:
        """How many ids there were to choose from, at each sampled token of the first number."""
        _, allowed = guide.encode([value, 0])
        first = len(guide.given[0])
        stop = first + len(str(value)) + 1
        return [len(choices) for choices in allowed[first:stop] if len(choices) > 1]

    assert set(Cursor(guide).choices) == set(digits)
    assert chosen(0) == [10]  # no number begins with a zero but 0
    assert chosen(7) == [10, 11]  # a second digit, or the end
    assert chosen(45) == [10, 11]
    assert chosen(10) == [10, 11, 2]  # 10, or 100
    assert chosen(100) == [10, 11, 2]
    assert set(guide.choices(0, (digits[7],))) == {*digits, end}
    assert guide.choices(0, (digits[1], digits[0])) == tuple(sorted((digits[0], end)))
    assert guide.choices(0, (digits[4], digits[5])) == (end,)


def test_compact_words_are_one_choice_a_step() -> None:
    text = word_codec(WORDS)
    guide = token_guide(text, form_of(COMPACT, 3))
    ids, allowed = guide.encode([0, 100, 50])
    assert text.decode(ids) == "t1 p0 t2 p100 t3 p50"
    assert [len(choices) for choices in allowed] == [1, 3, 1, 3, 1, 3, 1]


def test_numbers_that_a_tokenizer_does_not_know_are_an_error() -> None:
    fine = PromptBuilder(TextFormat("compact"), resolution=10, guided=True)
    with pytest.raises(ConfigError, match=r"'t1 p10 t2 p10' the tokenizer has no token .* prompt.resolution"):
        token_guide(word_codec(WORDS), form_of(fine, 2))
    with pytest.raises(ConfigError, match=r"cannot write 20 in a reflection .*prompt.resolution"):
        token_guide(word_codec({*WORDS, "p10"}), form_of(fine, 2))


def test_an_end_that_looks_like_a_digit_is_an_error() -> None:
    with pytest.raises(ConfigError, match="stands nothing, or another digit"):
        TokenGuide(((1,), (5, 2), (3,)), {4: (4,), 45: (4, 5)})
    with pytest.raises(ConfigError, match="stands nothing"):
        TokenGuide(((1,), ()), {4: (4,)})


# Sampling -----------------------------------------------------------------------------------------


def policy_with(text: TextCodec, kind: str, **settings: Any) -> TransformersPolicy:
    model = network(kind, vocabulary=text.vocabulary_size, max_position_embeddings=512)
    return TransformersPolicy(model.eval(), text, **settings)


POLICIES = {
    "packed": lambda text: policy_with(text, "qwen3"),
    "transformers": lambda text: policy_with(text, "llama", packed=False),
    "static": lambda text: policy_with(text, "llama", packed=False, static_cache="on"),
}
LENGTHS = (3, 1, 5, 3, 2, 8)
PROMPTS = ["ab", "step 1 ab", "a", "ab", "b a b a", "ba"]


def check(
    policy: TransformersPolicy, done: list[Completion], forms: list[GuidedText], fmt: TextFormat
) -> None:
    """Every answer is complete and valid, with the log-probs of a plain forward pass over the allowed ids."""
    for completion, form in zip(done, forms, strict=True):
        assert completion.finished
        assert completion.allowed is not None
        parsed = parse_reflection(completion.text, fmt, len(form))
        assert parsed.values is not None
        assert set(parsed.values) <= set(form.values)
        ids, allowed = token_guide(policy.codec, form).encode(parsed.values)
        assert (ids, allowed) == (completion.token_ids, completion.allowed)
        assert completion.sampled == sum(len(choices) > 1 for choices in allowed) < completion.tokens
        check_logprobs(policy, completion, completion.prompt_ids)


def check_logprobs(policy: TransformersPolicy, completion: Completion, context: tuple[int, ...]) -> None:
    logp = forward_logprobs(policy, (*context, *completion.token_ids))
    assert completion.allowed is not None
    spread = []
    for at, (token, choices) in enumerate(zip(completion.token_ids, completion.allowed, strict=True)):
        row = logp[len(context) + at - 1][list(choices)].astype(np.float64)
        row -= np.log(np.exp(row).sum())
        assert completion.logprobs[at] == pytest.approx(row[choices.index(token)], abs=2e-5)
        if len(choices) > 1:
            spread.append(-(np.exp(row) * row).sum())
        else:
            assert completion.logprobs[at] == 0
    assert completion.entropy == pytest.approx(np.mean(spread), abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("engine", POLICIES)
@pytest.mark.parametrize("kind", ["digit by digit", "with space"])
def test_guided_answers_of_unequal_length(kind: str, engine: str, temperature: float) -> None:
    policy = POLICIES[engine](codec(kind))
    assert policy.uses_packed == (engine == "packed")
    forms = [form_of(FULL, steps) for steps in LENGTHS]
    settings = SamplingSettings(150, temperature)
    keys = keys_of(len(forms), "guided")
    done = policy.generate(PROMPTS, keys, settings, forms)
    check(policy, done, forms, FULL.fmt)
    for row in (0, 2):  # what else is in the batch does not matter
        (alone,) = policy.generate(
            PROMPTS[row : row + 1], keys[row : row + 1], settings, forms[row : row + 1]
        )
        assert alone.token_ids == done[row].token_ids
    if temperature:
        assert len({completion.text for completion in done}) == len(done)


@pytest.mark.parametrize("engine", POLICIES)
def test_guided_answers_in_conversations(engine: str) -> None:
    policy = POLICIES[engine](codec("digit by digit"))
    session = policy.open_chat()
    rows = list(range(6))
    turns: dict[int, tuple[int, ...]] = {}
    first = session.answer(rows, ["step a"] * 6, keys_of(6, "first"), SamplingSettings(3))
    for row, completion in zip(rows, first, strict=True):
        turns[row] = (*completion.prompt_ids, *completion.token_ids)
    forms = [form_of(FULL, steps) for steps in LENGTHS]
    done = session.answer(rows, PROMPTS, keys_of(6, "second"), SamplingSettings(150), forms)
    for row, (completion, form) in enumerate(zip(done, forms, strict=True)):
        assert parse_reflection(completion.text, FULL.fmt, len(form)).values is not None
        check_logprobs(policy, completion, (*turns[row], *completion.prompt_ids))
    third = session.answer(rows, ["b"] * 6, keys_of(6, "third"), SamplingSettings(2))  # the cache is right
    for row, completion in enumerate(third):
        ids = (*turns[row], *done[row].prompt_ids, *done[row].token_ids, *completion.prompt_ids)
        logp = forward_logprobs(policy, (*ids, *completion.token_ids))
        for at, token in enumerate(completion.token_ids):
            assert completion.logprobs[at] == pytest.approx(logp[len(ids) + at - 1, token], abs=2e-5)


def test_equal_prompts_share_a_branch_until_they_differ() -> None:
    policy = POLICIES["packed"](codec("digit by digit"))
    forms = [form_of(FULL, 4)] * 12
    done = policy.generate(["ab"] * 12, keys_of(12, "equal"), SamplingSettings(60), forms)
    check(policy, done, forms, FULL.fmt)
    assert len({completion.text for completion in done}) > 6


def test_a_tiny_model_is_guided_in_compact_style(tmp_path: Any) -> None:
    from repro_rl.policy import build_tiny
    from support.models import TINY

    policy = load_cpu(build_tiny(tmp_path / "model", WORDS, TINY, seed=3))
    forms = [form_of(COMPACT, steps) for steps in (2, 9, 4)]
    done = policy.generate(["a", "b", "c d"], keys_of(3, "tiny"), SamplingSettings(20), forms)
    check(policy, done, forms, COMPACT.fmt)


@pytest.mark.parametrize("engine", POLICIES)
def test_a_decoder_of_single_tokens_gives_the_same(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from repro_rl.policy.decoding import guided

    policy = POLICIES[engine](codec("digit by digit"))
    forms = [form_of(FULL, steps) for steps in LENGTHS]
    keys = keys_of(len(forms), "single")
    blocks = policy.generate(PROMPTS, keys, SamplingSettings(150), forms)
    monkeypatch.setattr(guided, "takes", lambda decoder, more: not any(more))
    single = policy.generate(PROMPTS, keys, SamplingSettings(150), forms)
    assert [done.token_ids for done in single] == [done.token_ids for done in blocks]
    for one, other in zip(single, blocks, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)


def test_decode_steps_are_those_of_the_sampled_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given is appended with the token before it: no step for a token without a choice."""
    from repro_rl.policy.decoding.prompt_decoders import PackedDecoder

    steps: list[int] = []
    for name in ("advance", "advance_blocks"):
        original = getattr(PackedDecoder, name)
        monkeypatch.setattr(
            PackedDecoder, name, lambda *args, original=original: (steps.append(1), original(*args))[1]
        )
    policy = POLICIES["packed"](codec("three digits"))
    (done,) = policy.generate(["ab"], keys_of(1), SamplingSettings(150), [form_of(FULL, 8)])
    assert done.sampled == 8
    assert len(steps) == 7
    assert done.tokens > 5 * 8


def test_an_answer_that_might_not_fit_is_refused_before_it_begins() -> None:
    policy = POLICIES["packed"](codec("three digits"))
    with pytest.raises(ConfigError, match=r"up to \d+ tokens here; raise prompt.reflect_new_tokens"):
        policy.generate(["ab"], keys_of(1), SamplingSettings(10), [form_of(FULL, 8)])


def test_draws_follow_the_distribution_over_the_choices() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0, 50.0]])
    choices = [(0, 2, 3)] * 30_000
    uniform = (np.arange(30_000) + 0.5) / 30_000
    branch = np.zeros(30_000, dtype=np.int64)
    expected = np.exp([0.0, 2.0, 3.0]) / np.exp([0.0, 2.0, 3.0]).sum()
    token, logprob, entropy = draw_allowed(logits, branch, choices, uniform, SamplingSettings(1))
    shares = np.array([(token == i).mean() for i in (0, 2, 3)])
    np.testing.assert_allclose(shares, expected, atol=1e-4)
    assert entropy[0] == pytest.approx(-(expected * np.log(expected)).sum())
    assert logprob[0] == pytest.approx(np.log(expected[0]))  # the smallest uniform draws the first
    greedy, value, _ = draw_allowed(logits, branch[:1], choices[:1], uniform[:1], SamplingSettings(1, 0.0))
    assert (greedy[0], value[0]) == (3, pytest.approx(np.log(expected[2])))
    cold, _, _ = draw_allowed(logits, branch, choices, uniform, SamplingSettings(1, 1.0, top_p=0.5))
    assert set(cold) == {3}
