"""How many positions a model may be used with: fewer than it names where it computes in two ways."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from repro_rl.policy.model.positions import position_limit

LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("kind", "settings", "tokens", "reason"),
    [
        ("llama", {"max_position_embeddings": 512}, 512, ""),
        ("mpt", {"max_seq_len": 300}, 300, ""),
        ("doge", {"keep_window_size": 64}, 64, "attention of doge selects keep_window_size=64 tokens beyond"),
        ("deepseek_v32", {"index_topk": 128}, 128, "attention of deepseek_v32 selects index_topk=128 tokens"),
        ("glm_moe_dsa", {"index_topk": 2048}, 2048, "attention of glm_moe_dsa selects index_topk=2,048"),
        ("glm_moe_dsa", {"index_topk": 2048, "max_position_embeddings": 1024}, 1024, ""),
        ("deepseek_v4", {"index_topk": 16, "max_position_embeddings": 512}, 512, ""),  # pooled entries
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512, ""),
        ("phi3", {"original_max_position_embeddings": 64, "rope_parameters": LONG, "hidden_size": 64,
                  "num_attention_heads": 4, "pad_token_id": 0, "max_position_embeddings": 256},
         64, "LongRoPE changes its frequencies beyond"),
    ],
)  # fmt: skip
def test_by_configuration(kind, settings, tokens, reason):
    limit = position_limit(AutoConfig.for_model(kind, **settings))
    assert limit.tokens == tokens
    assert limit.reason.startswith(reason)
    assert bool(limit.reason) == bool(reason)


def test_models_without_positions_have_no_limit():
    assert position_limit(AutoConfig.for_model("bloom")) is None
