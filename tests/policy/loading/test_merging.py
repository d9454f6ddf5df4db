"""Adapters of others: added to the weights they are the model that was adapted, or they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repro_rl.config import LoraSection, PolicySection
from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy import SamplingSettings
from repro_rl.policy.forward.packed import packable
from repro_rl.run.models import load_policy, load_trained
from support.foreign_models import LLAMA_LIKE, copy_tokenizer, save_foreign
from support.models import keys_of, load_cpu

IDS = torch.tensor([[5, 6, 7, 8, 9]])
LAYERS = ["q_proj", "v_proj"]
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="needs repro-rl[lora]")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def save_adapter(base: Path, folder: Path, config: Any, rows: int = 0) -> torch.Tensor:
    """Write an adapter that changes its layers, and give the logits of the adapted model.

    ``rows``: that are added to the embeddings.
    """
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if rows:
        model.resize_token_embeddings(model.config.vocab_size + rows)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        adapted = get_peft_model(model, config).eval()
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.3)
    adapted.save_pretrained(folder, save_embedding_layers=bool(rows) or "auto")
    return logits(adapted)


# Weights that layers share ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:(?s).*tie_word_embeddings")
@pytest.mark.filterwarnings("ignore:.*save_embedding_layers")
@pytest.mark.parametrize(
    ("settings", "tied"),
    [
        ({"target_modules": [*LAYERS, "lm_head"]}, False),
        ({"target_modules": [*LAYERS, "embed_tokens"]}, False),
        ({"target_modules": LAYERS, "modules_to_save": ["embed_tokens"]}, False),
        ({"target_modules": LAYERS, "modules_to_save": ["lm_head"]}, False),
        ({"target_modules": LAYERS, "trainable_token_indices": [5, 6]}, True),
    ],
    ids=["target head", "target embeddings", "save embeddings", "save head", "tokens"],
)
def test_an_adapter_on_embeddings_that_are_the_head_changes_its_layer_alone(
    peft, tiny_folder, tmp_path, settings, tied
):
    base = save_foreign(tmp_path / "base", tiny_folder, "llama", tie_word_embeddings=True, **LLAMA_LIKE)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, **settings)
    expected = save_adapter(base, tmp_path / "adapter", config)
    loaded = load_policy(PolicySection(device="cpu"), tmp_path / "adapter")
    assert loaded.uses_packed
    [answer] = loaded.generate_ids([tuple(IDS[0].tolist())], keys_of(1), SamplingSettings(1))
    sampled = torch.log_softmax(expected[0, -1], -1)[answer.token_ids[0]]
    np.testing.assert_allclose(answer.logprobs[0], sampled, atol=1e-5)

    loaded.save_merged(tmp_path / "merged")
    trained = load_trained(PolicySection(device="cpu"), tmp_path / "adapter", resumed=False, seed=0)
    trained.save(tmp_path / "trained")
    again = [load_cpu(tmp_path / name) for name in ("merged", "trained")]
    for policy in (trained, *again):
        torch.testing.assert_close(logits(policy.model), expected, atol=1e-5, rtol=0)
        assert policy.model.config.tie_word_embeddings is tied
        head, embeddings = policy.model.lm_head.weight, policy.model.model.embed_tokens.weight
        assert (head is embeddings) is tied
    assert loaded.adapted  # left as it was
    torch.testing.assert_close(logits(loaded.model), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_own_adapters_on_a_weight_that_layers_share_are_refused(peft, tiny_folder, tmp_path, name):
    tied = save_foreign(tmp_path / "tied", tiny_folder, "llama", tie_word_embeddings=True, **LLAMA_LIKE)
    section = PolicySection(device="cpu", lora=LoraSection(rank=4, targets=["q_proj", name]))
    with pytest.raises(
        ConfigError, match=r"lora\.targets: model\.embed_tokens\.weight, lm_head\.weight are one weight"
    ):
        load_trained(section, tied, resumed=False, seed=0)
    apart = save_foreign(tmp_path / "apart", tiny_folder, "llama", tie_word_embeddings=False, **LLAMA_LIKE)
    policy = load_trained(section, apart, resumed=False, seed=0)
    with torch.no_grad():
        for key, weight in policy.model.named_parameters():
            if "lora_" in key:
                weight.add_(0.1)
    policy.save_merged(tmp_path / "merged")
    merged = load_cpu(tmp_path / "merged")
    torch.testing.assert_close(logits(merged.model), logits(policy.model), atol=1e-5, rtol=0)


# Kinds of adapters ------------------------------------------------------------------------------


def test_adapters_that_do_more_than_change_layers_are_refused(peft, tiny_folder, tmp_path):
    """The packed engine would not see them."""
    causal = {"task_type": "CAUSAL_LM"}
    cases = {
        "PROMPT_TUNING": peft.PromptTuningConfig(num_virtual_tokens=4, **causal),
        "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=4, **causal),
        "alora_invocation_tokens": peft.LoraConfig(
            target_modules=LAYERS, alora_invocation_tokens=[5, 6], **causal
        ),
    }
    for name, config in cases.items():
        save_adapter(tiny_folder, tmp_path / name, config)
        assert not packable(peft.PeftModel.from_pretrained(load_cpu(tiny_folder).model, tmp_path / name))
        for packed in (True, False):
            with pytest.raises(CheckpointError, match=rf"adapter in {tmp_path / name}: its .*{name}"):
                load_policy(PolicySection(device="cpu", packed=packed), tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*lora_bias")
@pytest.mark.filterwarnings("ignore:.*invalid shape")
def test_an_adapter_that_is_no_change_of_weights_is_evaluated_and_not_trained_on(peft, tiny_folder, tmp_path):
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["o_proj"], lora_bias=True)
    expected = save_adapter(tiny_folder, tmp_path / "adapter", config)
    policy = load_policy(PolicySection(device="cpu"), tmp_path / "adapter")
    torch.testing.assert_close(logits(policy.model), expected, atol=1e-5, rtol=0)
    message = rf"The adapter in {tmp_path / 'adapter'} cannot be added to the weights .*`lora_bias=True`"
    with pytest.raises(CheckpointError, match=message):
        policy.save_merged(tmp_path / "merged")
    with pytest.raises(CheckpointError, match=message):
        load_trained(PolicySection(device="cpu"), tmp_path / "adapter", resumed=False, seed=0)


# What is saved again ----------------------------------------------------------------------------


def test_embeddings_that_came_with_an_adapter_are_saved_with_it_again(peft, tiny_folder, tmp_path):
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=LAYERS)
    expected = save_adapter(tiny_folder, tmp_path / "adapter", config, rows=8)
    load_cpu(tmp_path / "adapter").save(tmp_path / "again")
    again = load_cpu(tmp_path / "again")
    assert again.model.config.vocab_size == expected.shape[-1]
    assert torch.equal(logits(again.model), expected)


def test_an_adapter_over_a_merged_one_on_experts_loads_again(peft, tiny_folder, tmp_path):
    """A forward pass with an adapter on experts changes the order of their weights, which names follow."""
    base = save_foreign(tmp_path / "base", tiny_folder, "qwen3_moe", **(LLAMA_LIKE | MOE))
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules=LAYERS, target_parameters=["mlp.experts.gate_up_proj"]
    )
    expected = save_adapter(base, tmp_path / "first", config)
    section = PolicySection(device="cpu", lora=LoraSection(rank=4))
    policy = load_trained(section, tmp_path / "first", resumed=False, seed=0)
    torch.testing.assert_close(logits(policy.model), expected, atol=1e-5, rtol=0)
    trained = [name for name, weight in policy.model.named_parameters() if weight.requires_grad]
    assert any("experts" in name for name in trained)
    policy.save(tmp_path / "second")
    again = load_cpu(tmp_path / "second")
    torch.testing.assert_close(logits(again.model), logits(policy.model), atol=1e-5, rtol=0)
    whole = load_trained(PolicySection(device="cpu"), tmp_path / "first", resumed=False, seed=0)
    fresh = load_cpu(base)  # the optimizer's state goes by this order
    assert [n for n, _ in whole.model.named_parameters()] == [n for n, _ in fresh.model.named_parameters()]


def test_code_of_a_folder_is_not_replaced_by_the_packed_engine(tiny_folder, tmp_path):
    """Its class may be called as one of transformers."""
    from transformers import AutoConfig, LlamaForCausalLM

    folder = save_foreign(tmp_path / "llama", tiny_folder, "llama", **LLAMA_LIKE)
    copy_tokenizer(tiny_folder, folder)
    own = type("LlamaForCausalLM", (LlamaForCausalLM,), {"__module__": "transformers_modules.own.modeling"})
    config = AutoConfig.from_pretrained(folder)
    assert packable(LlamaForCausalLM(config))
    assert not packable(own(config))
