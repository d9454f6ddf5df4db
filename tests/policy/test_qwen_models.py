"""Policies with the Qwen tokenizers: stop tokens, thinking, shapes, and answers as the parser reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.policy import SamplingSettings
from repro_rl.policy.loading.qwen_shapes import find_shape, model_config, shapes
from repro_rl.text import TextFormat
from repro_rl.text.parse import parse_action, parse_reflection
from support.models import forward_logprobs, keys_of, load_cpu
from support.qwen import small_shape, small_tokenizer


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Untrained one-layer models of both families over the small vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM

    folders = {}
    for family in ("qwen2.5", "qwen3"):
        config = model_config(small_shape(family, max_position_embeddings=4096))
        config.bos_token_id = config.pad_token_id = None
        config.eos_token_id = 261  # as a base checkpoint has it: <|endoftext|> alone
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        folders[family] = tmp_path_factory.mktemp("models") / family
        model.save_pretrained(folders[family])
        small_tokenizer(family).save_pretrained(folders[family])
    return folders


def test_either_control_token_ends_a_turn(models):
    for folder in models.values():
        policy = load_cpu(folder)
        assert policy.codec.eos_ids == {261, 263}  # <|endoftext|>, <|im_end|>
        assert policy.codec.pad_id == 261
        assert policy.codec.encode_target("the")[-2:] == (259, 263)
        assert policy.codec.decode((259, 263)) == policy.codec.decode((259, 261)) == "the"


def test_thinking_is_switched_by_the_prompt(models):
    """Off: the prompt has closed the thought already. On: the model opens it."""
    off = load_cpu(models["qwen3"], thinking=False)
    on = load_cpu(models["qwen3"], thinking=True)
    think, shut, newline = 285, 286, ord("\n")
    assert off.codec.encode("the")[-6:] == (think, newline, newline, shut, newline, newline)
    assert off.codec.encode("the")[:-6] == on.codec.encode("the")
    assert think not in on.codec.encode("the")


@pytest.mark.parametrize(
    ("thinking", "answer", "think", "defects"),
    [
        (True, "<think>\nhm\n</think>\n\n{}", "optional", ()),
        (True, "<think>\nhm\n</think>\n\n{}", "required", ()),
        (True, "<think>\nhm\n</think>\n\n{}", "off", ("unexpected_think",)),
        (False, "{}", "optional", ()),
        (False, "{}", "off", ()),
        (False, "<think>again</think>{}", "optional", ()),
    ],
)
def test_answers_with_and_without_thoughts_are_read(models, thinking, answer, think, defects):
    policy = load_cpu(models["qwen3"], thinking=thinking)
    fmt = TextFormat("full", progress=True, think=think)
    ids_ = policy.codec.encode_target(answer.format("<progress>40</progress><action>push up</action>"))
    parsed = parse_action(policy.codec.decode(ids_), fmt)
    assert (parsed.action, parsed.online, parsed.defects) == ("push up", 40, defects)
    ids_ = policy.codec.encode_target(answer.format("<progress>\nstep 1: 20\nstep 2: 100\n</progress>"))
    reflected = parse_reflection(policy.codec.decode(ids_), fmt, 2)
    assert reflected.values == (None if defects else (20, 100))


def test_a_padded_models_answers_hold_tokens_only(models):
    """Its log-probs are still those of the whole output layer, as the trainer's."""
    policy = load_cpu(models["qwen2.5"])
    known = set(policy.codec.tokenizer.get_vocab().values())
    assert (policy.codec.vocabulary_size, len(known)) == (320, len(policy.codec.tokenizer))
    prompt = policy.codec.encode("the")
    for chat in (False, True):
        if chat:
            session = policy.open_chat()
            done = session.answer(range(64), ["the"] * 64, keys_of(64), SamplingSettings(8))
        else:
            done = policy.generate(["the"] * 64, keys_of(64), SamplingSettings(8))
        assert {token for answer in done for token in answer.token_ids} <= known
        answer = done[0]
        logprobs = forward_logprobs(policy, (*prompt, *answer.token_ids))[len(prompt) - 1 : -1]
        picked = logprobs[range(len(answer.token_ids)), answer.token_ids]
        assert answer.logprobs == pytest.approx(picked, abs=1e-5)


# Shapes --------------------------------------------------------------------------------------------

PUBLISHED = {  # parameters of the published checkpoints
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(model):
    import torch
    from transformers import AutoModelForCausalLM

    shape = find_shape(model)
    assert shape is not None
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(model_config(shape))
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[model]


def test_an_unlisted_model_has_no_shape():
    assert find_shape("Qwen/Qwen1-99B") is None
    assert all(
        shape["num_attention_heads"] % shape["num_key_value_heads"] == 0 for shape in shapes().values()
    )
