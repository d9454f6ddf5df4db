"""What may be done with a model: the layout of its batches, and whether conversations keep their cache."""

from __future__ import annotations

import pytest

from repro_rl.config import LoraSection
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.decoding.sessions import CachedSession
from repro_rl.policy.loading import lora
from repro_rl.policy.model.capabilities import Batching, capabilities_of, keeps_cache
from repro_rl.policy.token_policy import TokenSession
from repro_rl.policy.tokens.codec import TextCodec
from support.architectures import FAMILIES, WINDOW, build, tokenizer

BY_NAME = {family.name: family for family in FAMILIES}


def model_of(name, **settings):
    family = BY_NAME[name]
    return build(type(family)(name, family.model_type, {**family.settings, **settings}, family.sized), 300)


@pytest.mark.parametrize(
    ("name", "batching", "window", "chat"),
    [
        ("Llama", Batching.PADDED, None, True),
        ("Mistral, window", Batching.LEFT_PADDED, WINDOW, False),
        ("Gemma 3", Batching.LEFT_PADDED, WINDOW, False),  # some layers see everything
        ("Llama 4", Batching.LEFT_PADDED, WINDOW, False),  # chunks
        ("GPT-Neo", Batching.LEFT_PADDED, WINDOW, False),  # a window that its cache knows nothing of
        ("MPT", Batching.LEFT_PADDED, None, False),
        ("BLOOM", Batching.PADDED, None, False),  # its ALiBi counts the tokens of a mask that it must see
        ("Falcon, ALiBi", Batching.PADDED, None, False),
        ("Falcon, rotary", Batching.PADDED, None, True),
        ("Jamba", Batching.EQUAL, None, False),
        ("Falcon-H1", Batching.EQUAL, None, False),  # both states in every layer
        ("RecurrentGemma", Batching.UNCACHED, None, False),
        ("RWKV-4", Batching.UNCACHED, None, False),
    ],
)
def test_by_architecture(name, batching, window, chat):
    can = capabilities_of(model_of(name))
    assert (can.batching, can.window, can.chat_cache) == (batching, window, chat)
    assert bool(can.reason) == (batching is not Batching.PADDED)


def test_a_batch_within_the_window_is_padded_as_if_there_were_none():
    can = capabilities_of(model_of("Mistral, window"))
    assert can.batching_of(WINDOW) is Batching.PADDED
    assert can.batching_of(WINDOW + 1) is Batching.LEFT_PADDED
    alibi = capabilities_of(model_of("MPT"))
    assert alibi.batching_of(1) is Batching.LEFT_PADDED


def test_the_narrowest_window_decides():
    can = capabilities_of(model_of("GPT-Neo", attention_types=[[["local"], 2]], window_size=5))
    assert can.window == 5


def test_code_outside_transformers_is_treated_as_generate_does():
    from transformers import LlamaForCausalLM

    class Remote(LlamaForCausalLM):
        pass

    can = capabilities_of(Remote(model_of("Llama").config))
    assert (can.batching, can.window, can.chat_cache) == (Batching.LEFT_PADDED, None, False)


def test_an_adapter_changes_nothing():
    model = model_of("Mistral, window")
    bare = capabilities_of(model)
    assert capabilities_of(lora.attach(model, LoraSection(rank=2), "x", 0)) == bare


def test_masks_of_our_own_need_an_attention_that_adds_them():
    model = model_of("Llama")
    assert keeps_cache(model)
    model.config._attn_implementation = "flash_attention_2"
    assert not keeps_cache(model)


@pytest.mark.parametrize("name", ["Mistral, window", "BLOOM", "Falcon, ALiBi", "MPT", "GPT-Neo", "LFM2"])
def test_other_models_read_the_whole_conversation_again(name):
    words = tokenizer()
    policy = TransformersPolicy(build(BY_NAME[name], len(words)), TextCodec(words))
    assert type(policy.open_chat()) is TokenSession
    assert type(TransformersPolicy(build(BY_NAME["Llama"], len(words)), TextCodec(words)).open_chat()) is (
        CachedSession
    )
