"""A model's own dropout is off wherever it comes from, and its config.json keeps saying what it said."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from repro_rl.policy.loading.dropout import turn_off, turn_off_modules, with_dropout
from support.foreign_models import LLAMA_LIKE, save_foreign
from support.models import load_cpu

GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
FAMILIES = {
    "gpt2": GPT | {"resid_pdrop": 0.4, "embd_pdrop": 0.4, "attn_pdrop": 0.4},  # dropout layers
    "opt": {  # a function, and whole layers left out
        "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 128, "word_embed_proj_dim": 32, "dropout": 0.4, "layerdrop": 0.5,
    },
    "qwen2": LLAMA_LIKE | {"attention_dropout": 0.5},  # in the attention function alone
    "gpt_neox": LLAMA_LIKE | {"hidden_dropout": 0.4, "attention_dropout": 0.4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "hidden_dropout": 0.4, "attention_dropout": 0.4},
    "mpt": {  # in a nested configuration
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128, "attn_config": {"attn_pdrop": 1},
        "resid_pdrop": 0.4, "emb_pdrop": 0.4,
    },
    "mixtral": LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_in_training_a_model_computes_what_it_samples_from(tiny_folder, tmp_path, kind):
    folder = save_foreign(tmp_path / kind, tiny_folder, kind, **FAMILIES[kind])
    policy = load_cpu(folder, training=True)
    assert policy.origin.dropout
    ids = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10]])
    logits = []
    with torch.no_grad():
        for training, seed in ((False, 0), (True, 1), (True, 2)):
            policy.model.train(training)
            torch.manual_seed(seed)
            logits.append(policy.model(input_ids=ids, use_cache=False).logits)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
    policy.save(tmp_path / "again")
    old, new = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path / "again"))
    for name, value in policy.origin.dropout.items():
        for part in name.split("."):
            old, new = old[part], new[part]
        assert new == old == value
        old, new = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path / "again"))
    assert load_cpu(tmp_path / "again").origin.dropout == policy.origin.dropout


def test_names_and_nested_settings():
    class Nested:
        def __init__(self):
            self.attn_pdrop = 0.25

        def to_dict(self):
            return vars(self)

    class Config:
        def __init__(self):
            self.dropout, self.token_dropout, self.hidden_size = 0.1, True, 8
            self.jitter_noise, self.attention_dropout = 0.01, 0.0
            self.attn_config, self.ffn = Nested(), {"ffn_dropout": 0.5, "width": 4}
            self.drop_tokens, self.id2label = 16, {0: "a"}

    config = Config()
    values = turn_off(config)
    assert values == {
        "dropout": 0.1,
        "jitter_noise": 0.01,
        "attn_config.attn_pdrop": 0.25,
        "ffn.ffn_dropout": 0.5,
    }
    assert (config.dropout, config.attn_config.attn_pdrop, config.ffn["ffn_dropout"]) == (0, 0, 0)
    assert (config.token_dropout, config.drop_tokens) == (True, 16)
    assert with_dropout({"hidden_size": 8, "ffn": {"width": 4}}, values) == {
        "hidden_size": 8,
        "dropout": 0.1,
        "jitter_noise": 0.01,
        "attn_config": {"attn_pdrop": 0.25},
        "ffn": {"width": 4, "ffn_dropout": 0.5},
    }


def test_dropout_that_only_the_code_names_is_off_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Sequential(nn.AlphaDropout(0.3)))
    turn_off_modules(model)
    model.train()
    x = torch.ones(2, 4)
    assert torch.equal(model(x), model(x))
