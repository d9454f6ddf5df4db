"""Tiny models of random weights of the architectures that docs/architectures.md lists, and the table itself.

``python -m support.architectures`` from the folder tests writes the table into the page again.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
BEGIN, END = "<!-- families -->\n", "<!-- end of families -->\n"
WINDOW = 16  # of the models with one: shorter than the prompts of the check
POSITIONS = 256
SELECTED = 192  # tokens that attention selects, where it does: more than the conversations of the check have


@dataclass(slots=True, frozen=True)
class Family:
    """One row of the table."""

    name: str
    model_type: str  # of transformers' AutoConfig
    settings: Mapping[str, Any] = field(default_factory=dict)  # beside SIZE
    sized: bool = True  # takes the names of SIZE


SIZE: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": POSITIONS,
}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MLA = {
    "q_lora_rank": None, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "head_dim": 8, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 24, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 2,
    "topk_group": 1,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MIXED = ["sliding_attention", "full_attention"]

STATES = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
MAMBA2 = {
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8,
}  # fmt: skip
RWKV = {
    "hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "context_length": POSITIONS,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

# fmt: off
FAMILIES = [
    Family("Llama", "llama"),
    Family("Llama, rope scaling of 3.x", "llama", {"rope_parameters": LLAMA3_ROPE}),
    Family("Mistral, no window", "mistral", {"sliding_window": None}),
    Family("Mistral, window", "mistral", {"sliding_window": WINDOW}),
    Family("Ministral", "ministral", {"sliding_window": WINDOW, "layer_types": MIXED}),
    Family("Mixtral", "mixtral", EXPERTS),
    Family("Qwen2, Qwen2.5", "qwen2"),
    Family("Qwen2, window in some layers", "qwen2", {
        "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    Family("Qwen2-MoE", "qwen2_moe", {**MOE, "shared_expert_intermediate_size": 24}),
    Family("Qwen3", "qwen3"),
    Family("Qwen3-MoE", "qwen3_moe", MOE),
    Family("Qwen3-Next", "qwen3_next", {**MOE, **DELTA, "shared_expert_intermediate_size": 24}),
    Family("Qwen3.5", "qwen3_5_text", DELTA),
    Family("Gemma", "gemma"),
    Family("Gemma 2", "gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    Family("Gemma 3", "gemma3_text", {"sliding_window": WINDOW, "layer_types": MIXED}),
    Family("Phi", "phi"),
    Family("Phi-3, no window", "phi3", {"sliding_window": None}),
    Family("Phi-3, window", "phi3", {"sliding_window": WINDOW}),
    Family("GPT-2", "gpt2", GPT, sized=False),
    Family("GPT-J", "gptj", {**GPT, "rotary_dim": 4}, sized=False),
    Family("GPT-Neo", "gpt_neo", {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
        "window_size": WINDOW, "max_position_embeddings": POSITIONS}, sized=False),
    Family("GPT-NeoX, Pythia", "gpt_neox"),
    Family("GPT-BigCode, StarCoder", "gpt_bigcode", GPT, sized=False),
    Family("CodeGen", "codegen", {**GPT, "rotary_dim": 4}, sized=False),
    Family("OPT", "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    Family("XGLM", "xglm", {
        "d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4,
        "max_position_embeddings": POSITIONS}, sized=False),
    Family("BioGPT", "biogpt"),
    Family("BLOOM", "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, sized=False),
    Family("MPT", "mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": POSITIONS}, sized=False),
    Family("Falcon, rotary", "falcon", {**FALCON, "alibi": False, "multi_query": True}, sized=False),
    Family("Falcon, ALiBi", "falcon", {**FALCON, "alibi": True, "multi_query": False}, sized=False),
    Family("StableLM", "stablelm"),
    Family("SmolLM3", "smollm3", {"no_rope_layers": [1, 0]}),
    Family("OLMo", "olmo"),
    Family("OLMo 2", "olmo2"),
    Family("OLMo 3", "olmo3", {"sliding_window": WINDOW, "layer_types": MIXED}),
    Family("OLMoE", "olmoe", MOE),
    Family("Granite", "granite"),
    Family("Granite-MoE", "granitemoe", EXPERTS),
    Family("Cohere", "cohere", {"logit_scale": 1.0}),
    Family("Cohere 2", "cohere2", {"logit_scale": 1.0, "sliding_window": WINDOW, "layer_types": MIXED}),
    Family("StarCoder2, no window", "starcoder2", {"sliding_window": None}),
    Family("StarCoder2, window", "starcoder2", {"sliding_window": WINDOW}),
    Family("Nemotron", "nemotron"),
    Family("GLM-4", "glm4"),
    Family("EXAONE 4", "exaone4", {"sliding_window": WINDOW, "layer_types": MIXED}),
    Family("gpt-oss", "gpt_oss", {**EXPERTS, "sliding_window": WINDOW, "layer_types": MIXED}),
    Family("DeepSeek-V2", "deepseek_v2", {**MLA, "topk_method": "greedy"}),
    Family("DeepSeek-V3", "deepseek_v3", {**MLA, "q_lora_rank": 16}),
    Family("MiniMax-M2", "minimax_m2", {**EXPERTS, "rotary_dim": 8}),
    Family("Llama 4", "llama4_text", {
        "num_local_experts": 2, "attention_chunk_size": WINDOW, "intermediate_size_mlp": 48,
        "layer_types": ["chunked_attention", "full_attention"]}),
    Family("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"]}),
    Family("Mamba", "mamba", STATES, sized=False),
    Family("Mamba-2", "mamba2", {
        **STATES, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8}, sized=False),
    Family("Falcon-Mamba", "falcon_mamba", STATES, sized=False),
    Family("Falcon-H1", "falcon_h1", {**MAMBA2, "mamba_d_ssm": 64}),
    Family("Jamba", "jamba", {
        "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 4, "attn_layer_period": 2,
        "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4,
        "use_mamba_kernels": False}),
    Family("Bamba", "bamba", {**MAMBA2, "attn_layer_indices": [1]}),
    Family("Granite 4, hybrid", "granitemoehybrid", {
        **MAMBA2, **EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 48}),
    Family("Nemotron-H", "nemotron_h", {
        "mamba_num_heads": 8, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 8,
        "layers_block_type": ["mamba", "attention"]}),
    Family("Zamba2", "zamba2", {
        "mamba_d_state": 8, "mamba_headdim": 8, "n_mamba_heads": 8, "mamba_ngroups": 1, "chunk_size": 8,
        "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "use_mem_rope": True}),
    Family("RecurrentGemma", "recurrent_gemma", {
        "lru_width": 32, "attention_window_size": WINDOW, "num_hidden_layers": 3}),
    Family("RWKV-4", "rwkv", {**RWKV, "rescale_every": 0}, sized=False),
    Family("RWKV-4, rescaled", "rwkv", {**RWKV, "rescale_every": 6}, sized=False),
    Family("LFM3", "lfm3"),  # linear layers alone
    Family("MiniMax-01", "minimax", {**EXPERTS, "layer_types": ["linear_attention", "full_attention"]}),
    Family("xLSTM", "xlstm", {
        "hidden_size": 32, "embedding_dim": 32, "num_blocks": 2, "num_hidden_layers": 2, "num_heads": 4},
        sized=False),
    Family("Qwen3.5, linear layers alone", "qwen3_5_text", {
        **DELTA, "layer_types": ["linear_attention", "linear_attention"]}),
    Family("RoBERTa as a decoder", "roberta", {"is_decoder": True}),
    Family("DeepSeek-V3.2", "deepseek_v32", {
        **MLA, "q_lora_rank": 16, "index_topk": SELECTED, "index_n_heads": 2, "index_head_dim": 16}),
    Family("Doge", "doge", {"keep_window_size": SELECTED}),
    Family("Reformer", "reformer", {
        "is_decoder": True, "hidden_size": 32, "attention_head_size": 8, "num_attention_heads": 4,
        "axial_pos_embds": False, "attn_layers": ["local", "lsh"], "feed_forward_size": 48,
        "max_position_embeddings": POSITIONS, "num_buckets": 4}, sized=False),
    Family("BERT, RoBERTa and other encoders", "bert"),
]
# fmt: on


def tokenizer() -> Any:
    """A byte-level tokenizer with a chat template of the ChatML kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from repro_rl.policy.exactness import SENTENCE

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    core.train_from_iterator([f"user\n{SENTENCE}\nassistant\n"] * 50, trainer)
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def build(family: Family, tokens: int, seed: int = 0) -> Any:
    """The model of a family in float32 with a vocabulary of ``tokens``; its logits are far from flat."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ends = {"vocab_size": tokens, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    settings = {**(SIZE if family.sized else {}), **ends, **family.settings}
    config = AutoConfig.for_model(family.model_type, **settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def save(family: Family, folder: Path, words: Any) -> Path:
    """The model of a family with the tokenizer ``words``, as an ordinary folder."""
    build(family, len(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def row(family: Family, folder: Path, words: Any) -> str:
    """The family's row of the table: what ``check_model`` says of its model, written into ``folder``."""
    from repro_rl.config import load_config
    from repro_rl.errors import CheckpointError
    from repro_rl.policy.model.capabilities import Batching
    from repro_rl.study.conformance import check_model

    save(family, folder, words)
    config = load_config("sokoban-tiny", ["policy.packed=false", "policy.device=cpu"])
    try:
        found = check_model(folder, config)
    except CheckpointError as error:
        return _cells(family, "–", "–", f"refused: {error}".replace(str(folder), "FOLDER"))
    assert found.window is not None
    assert found.chat is not None
    failed = [f"{check.name}: {check.detail}" for check in found.checks if not check.ok]
    assert failed or max(found.window.largest, found.chat.largest) <= LIMIT
    (batches,) = (BATCHES[b.name] for b in Batching if b.value in found.facts["sampling"])
    kept = found.facts["chat context"].startswith("the KV cache is kept")
    result = f"refused: {'; '.join(failed)}" if failed else "exact"
    positions, _, why = found.facts["positions"].partition("; ")
    if why:
        result += f" within {positions} tokens: {why}"
    return _cells(family, batches, "kept" if kept else "computed again", result)


BATCHES = {
    "PADDED": "padded, prefixes shared",
    "LEFT_PADDED": "padded on the left",
    "EQUAL": "of equal length",
    "UNCACHED": "no KV cache (slow)",
}
LIMIT = 1e-5  # largest |sampled - computed| log-prob


def _cells(family: Family, *cells: str) -> str:
    shown = re.sub(r"[0-9.]+e-[0-9]+", "…", " | ".join(cells))
    return f"| {family.name} | `{family.model_type}` | {shown} |\n"


def written_rows() -> dict[str, str]:
    """Family -> its row of the page."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return {line.split("|")[1].strip(): line for line in table.splitlines(keepends=True)[2:]}


def write_page() -> None:
    """Measure all families and write the table into the page."""
    words = tokenizer()
    lines = [
        "| family | `model_type` | batches | KV cache of conversations | result |\n",
        "|---|---|---|---|---|\n",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines += [row(family, Path(folder) / str(i), words) for i, family in enumerate(FAMILIES)]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{''.join(lines)}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write_page()
