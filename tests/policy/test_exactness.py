"""Sampled beside computed log-probs: exact models, and those that a wrong layout or a wrong model betrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from repro_rl.errors import CheckpointError, DeviceMemoryError
from repro_rl.policy import SamplingSettings, TransformersPolicy, exactness, transformers_policy
from repro_rl.policy.decoding.prompt_decoders import MIN_PREFIX, common_prefix
from repro_rl.policy.decoding.sessions import CachedSession
from repro_rl.policy.loading.codec import codec_of
from repro_rl.policy.model.capabilities import Batching, capabilities_of
from repro_rl.policy.tokens.codec import TextCodec
from support.architectures import FAMILIES, build, tokenizer
from support.models import keys_of, load_cpu

BY_NAME = {family.name: family for family in FAMILIES}
# Windows in all layers and in some, chunks, local layers, ALiBi.
DISTANCE_IN_SLOTS = ["Mistral, window", "Gemma 2", "OLMo 3", "Cohere 2", "Llama 4", "GPT-Neo", "MPT"]
RECURRENT = ["Qwen3.5", "LFM2", "Mamba-2", "Falcon-H1", "Jamba"]


@pytest.fixture(scope="module")
def words():
    return tokenizer()


def policy_of(name, words, **options):
    return TransformersPolicy(build(BY_NAME[name], len(words)), TextCodec(words), **options)


def prompts_of(policy):
    return [policy.codec.encode(text) for text in exactness.probe_texts(policy.codec)]


def test_prompts_are_unequal_and_begin_alike(words):
    prompts = prompts_of(policy_of("Llama", words))
    assert len({len(ids) for ids in prompts}) == 4
    assert common_prefix(prompts[:3]) >= MIN_PREFIX
    assert common_prefix(prompts) < MIN_PREFIX


def test_prompts_of_a_word_level_tokenizer_have_its_words(tiny_folder):
    policy = load_cpu(tiny_folder)
    texts = exactness.probe_texts(policy.codec)
    assert [policy.codec.unknown_words(text) for text in texts] == [[]] * 4
    assert len(set(texts)) == 4


def test_three_turns_fit_into_few_positions(words):
    codec = TextCodec(words, positions=180)
    assert max(len(codec.encode(text)) for text in exactness.probe_texts(codec)) <= 30


@pytest.mark.parametrize("name", DISTANCE_IN_SLOTS)
def test_padding_behind_the_prefix_betrays_itself(name, words, monkeypatch):
    """The layout that is right for full attention, forced on models that count slots."""
    policy = policy_of(name, words)
    prompts = prompts_of(policy)[:3]
    assert exactness.window_deviation(policy, prompts, 4).largest <= 1e-5
    wrong = replace(capabilities_of(policy.model), batching=Batching.PADDED)
    monkeypatch.setattr(transformers_policy, "capabilities_of", lambda model: wrong)
    policy.weights_changed()
    found = exactness.window_deviation(policy, prompts, 4)
    assert found.largest > 1e-4
    assert found.tokens <= 12


@pytest.mark.parametrize("name", ["BLOOM", "Falcon, ALiBi"])
def test_masks_of_our_own_betray_themselves(name, words):
    """Conversations whose cache is kept, forced on models that count the tokens of a 2-D mask."""
    policy = policy_of(name, words)
    texts = exactness.probe_texts(policy.codec)
    assert exactness.chat_deviation(policy, texts, 2).largest <= 1e-5
    with pytest.raises((ValueError, RuntimeError)):
        CachedSession(policy).answer([0, 1], texts[:2], keys_of(2), SamplingSettings(2))


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_states_follow_rows_that_branch_and_leave(name, words):
    """Copies of a prompt sample different tokens; some end early; lengths differ."""
    policy = policy_of(name, words)
    first, second, *_ = prompts_of(policy)
    prompts = [first[:6], first[:9], first[:6], second[:4], first[:6], first[:9]]
    done = policy.generate_ids(prompts, keys_of(6), SamplingSettings(8, temperature=1.5))
    assert len({c.token_ids for c in done}) == 6
    for completion in done:
        row = exactness.logprobs_of(policy, (*completion.prompt_ids, *completion.token_ids))
        start = len(completion.prompt_ids) - 1
        computed = row[start : start + len(completion.token_ids)]
        logits = torch.log_softmax(torch.from_numpy(computed) / 1.5, -1).numpy()
        sampled = logits[np.arange(len(logits)), list(completion.token_ids)]
        assert completion.logprobs == pytest.approx(sampled, abs=1e-5)


def test_batches_of_equal_length_hold_no_padding(words):
    policy = policy_of("LFM2", words)
    shapes = []
    policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    policy.generate_ids([(5, 6), (5, 6, 7), (8, 9), (5, 6)], keys_of(4), SamplingSettings(1))
    assert shapes == [(2, 2), (1, 3)]  # equal prompts are one row


def test_a_window_that_hides_nothing_shares_the_prefix(words):
    """Prompt and answer fit into the window, so what prompts share is computed once."""
    policy = policy_of("Mistral, window", words)
    policy.model.config.sliding_window = 500
    for layer in policy.model.model.layers:
        layer.self_attn.sliding_window = 500
    sizes = []
    policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    prompts = prompts_of(policy)[:3]
    assert exactness.window_deviation(policy, prompts, 1).largest <= 1e-5
    shared = common_prefix(prompts)
    assert sizes[:2] == [shared, max(map(len, prompts)) - shared]


def counting_slots(policy):
    """Make positions those of cache slots that nobody knows of, in code of one's own."""
    inner = policy.model.forward

    def forward(input_ids=None, position_ids=None, past_key_values=None, **rest):
        slot = 0 if past_key_values is None else past_key_values.get_seq_length()
        position_ids = torch.arange(slot, slot + input_ids.shape[1])[None] ** 2 // 7
        return inner(input_ids, position_ids=position_ids, past_key_values=past_key_values, **rest)

    policy.model.forward = forward


def test_models_that_are_exact_without_a_cache_alone_do_without(words):
    """The warning says why, and so do the capabilities; what is sampled then is the model's."""
    policy = policy_of("Llama", words, packed=False)
    counting_slots(policy)
    assert exactness.window_deviation(policy, prompts_of(policy), 3).mean > 1e-3
    with pytest.warns(
        UserWarning, match=r"mine \(LlamaForCausalLM\) is sampled without a KV cache.*differ by"
    ):
        exactness.check_exact(policy, "mine")
    can = capabilities_of(policy.model)
    assert (can.batching, can.chat_cache) == (Batching.UNCACHED, False)
    assert "the sampled log-probs are not those of the model" in can.reason
    assert exactness.window_deviation(policy, prompts_of(policy), 3).largest <= 1e-5


def test_code_that_fails_with_a_cache_does_without(words):
    policy = policy_of("Llama", words, packed=False)
    inner = policy.model.forward

    def forward(input_ids=None, past_key_values=None, **rest):
        if past_key_values is not None:
            raise ValueError("Mine uses a cache of its own.")
        return inner(input_ids, **rest)

    policy.model.forward = forward
    with pytest.warns(UserWarning, match=r"its code fails: ValueError: Mine uses a cache of its own\.$"):
        exactness.check_exact(policy, "mine")
    assert exactness.chat_deviation(policy, exactness.probe_texts(policy.codec), 2).largest <= 1e-5


def test_code_that_fails_in_any_case_is_refused_with_its_reason(words):
    policy = policy_of("Llama", words, packed=False)

    def forward(input_ids=None, **rest):
        raise KeyError("no state of layer 1")

    policy.model.forward = forward
    with pytest.raises(
        CheckpointError, match=r"mine \(LlamaForCausalLM\) cannot be sampled.*no state of layer 1"
    ):
        exactness.check_exact(policy, "mine")


@pytest.mark.parametrize("place", ["generate_ids", "model"])
def test_a_trial_without_memory_says_nothing_of_the_model(place, words, monkeypatch):
    policy = policy_of("Llama", words, packed=False)

    def full(*args, **rest):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    if place == "model":
        monkeypatch.setattr(exactness, "logprobs_of", full)
    else:
        monkeypatch.setattr(policy.model, "forward", full)
    with pytest.raises(DeviceMemoryError, match=r"Out of memory while .*DefaultCPUAllocator"):
        exactness.check_exact(policy, "mine")


def test_models_whose_passes_do_not_repeat_are_refused(words):
    policy = policy_of("Llama", words, packed=False)
    inner = policy.model.forward

    def forward(*args, **rest):
        out = inner(*args, **rest)
        out.logits = out.logits + torch.randn_like(out.logits)
        return out

    policy.model.forward = forward
    with pytest.raises(CheckpointError, match=r"LlamaForCausalLM.*sampled log-probs are not those.*vllm"):
        exactness.check_exact(policy, "mine")


@pytest.mark.parametrize("name", ["DeepSeek-V3.2", "Doge"])
def test_attention_that_selects_tokens_is_exact_within_its_positions_alone(name, words):
    """Prompts that begin alike, within what is selected and beyond."""
    family = BY_NAME[name]
    few = {key: 64 for key in ("index_topk", "keep_window_size") if key in family.settings}
    model = build(replace(family, settings={**family.settings, **few}), len(words))
    policy = TransformersPolicy(model, codec_of(words, model.config, None))
    assert policy.codec.positions == 64
    draw = np.random.default_rng(0).integers(3, len(words), 200).tolist()
    short = [(*draw[:30], *draw[100 : 100 + size]) for size in (10, 20, 30)]
    assert exactness.window_deviation(policy, short, 4).largest <= 1e-5
    policy.codec.positions = None
    long = [(*draw[:60], *draw[100 : 100 + size]) for size in (20, 50, 90)]
    assert exactness.window_deviation(policy, long, 4).largest > 1e-4


def test_exact_models_pass(words):
    for name in ("Llama", "GPT-2", "RecurrentGemma"):
        exactness.check_exact(policy_of(name, words), name)
