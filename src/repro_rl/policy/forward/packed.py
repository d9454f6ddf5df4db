"""The forward pass of Llama-like models over a token tree, on a CPU.

The same weights and the same arithmetic as the model of transformers, up to the last bits, with less work.
Every distinct prefix is computed once, and nothing is padded outside attention. The last layer, which for
small models is much of the network, is computed only where logits are wanted. Gradients flow to the model's
own parameters, so sampling, training and the reference may all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from repro_rl.policy.forward.tree import TokenTree
from repro_rl.policy.forward.tree_attention import attend, causal_attention, last_layer_attention
from repro_rl.policy.model.adapter import AdapterOff, base_model, changes_layers_alone, has_adapter
from repro_rl.policy.model.capabilities import LIBRARY
from repro_rl.policy.model.linear import apply_linear
from repro_rl.policy.model.prepacked import reorders

BLOCKED_HEAD_MAX_STATES = 128  # logits of more states are computed all at once
BLOCKED_HEAD_MIN_VOCABULARY = 8192  # so are those of a vocabulary that is not larger
HEAD_BLOCK_COLUMNS = 768  # logits computed at a time otherwise, see ``last_logits``
BLOCK = 2048  # nodes at a time, so that what lies between two matrix products stays in the CPU's caches
ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
)
STATIC_ROPE = ("default", "linear", "llama3", "yarn")  # one frequency table for prompts of every length

Rotary = tuple[torch.Tensor, torch.Tensor]  # cos and sin of the rotary embedding, [N, 1, D] each
KV = tuple[torch.Tensor, torch.Tensor]  # keys (rotary embedding applied) and values of one layer


def use_packed(enabled: bool, *models: Any) -> bool:
    """Whether the packed forward pass stands in for that of ``models``: all of them, or none."""
    return enabled and all(map(packable, models))


def packable(model: Any) -> bool:
    """Whether ``forward`` computes what ``model`` does: its architecture, settings, dtype and device.

    ``model`` may carry an adapter, or be one with its adapter off. False as well where it was not measured to
    pay: on a GPU.
    """
    given, model = model, without_wrappers(model)
    kind = type(model)
    if kind.__name__ not in ARCHITECTURES or not kind.__module__.startswith(LIBRARY):  # code of a folder
        return False
    config, inner = model.config, model.model
    return bool(
        _sees_adapter(given)
        and _plain_weights(model)
        and config._attn_implementation in ("sdpa", "eager")
        and config.hidden_act == "silu"
        and config.attention_dropout == 0
        and not any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())
        and not has_window(config)
        and config.rope_parameters["rope_type"] in STATIC_ROPE
        and 2 * len(inner.rotary_emb.inv_freq) == inner.layers[0].self_attn.head_dim
        and not inner.gradient_checkpointing
        and not torch.is_autocast_enabled("cpu")
    )


def _sees_adapter(model: Any) -> bool:
    """Whether all that an adapter changes are the layers, which the packed forward pass calls."""
    adapted = model.model if isinstance(model, AdapterOff) else model
    return not has_adapter(adapted) or all(map(changes_layers_alone, adapted.peft_config.values()))


def _plain_weights(model: Any) -> bool:
    """Whether all weights lie on the CPU, whole, in one dtype that is served; an adapter's may differ."""
    weights = dict(model.named_parameters())
    kinds = {weight.dtype for name, weight in weights.items() if ".lora_" not in name}
    return kinds in ({torch.float32}, {torch.bfloat16}) and all(
        type(weight) is torch.nn.Parameter and weight.device.type == "cpu"  # neither sharded nor quantised
        for weight in weights.values()
    )


def without_wrappers(model: Any) -> Any:
    """The causal LM itself, whose projections may be those of an adapter."""
    return base_model(model.model if isinstance(model, AdapterOff) else model)


def has_window(config: Any) -> bool:
    """Whether a layer of one of ``ARCHITECTURES`` sees only the last tokens.

    Of these configurations Llama's has no window at all. Mistral's window is on when it is not None, whatever
    ``layer_types`` says; the others list the layers that have one.
    """
    if config.model_type == "mistral":
        return config.sliding_window is not None
    return "sliding_attention" in (getattr(config, "layer_types", None) or ())


@dataclass(slots=True)
class TreeKV:
    """Keys and values of a tree's nodes, [N, kv_heads, D] each, one pair a layer."""

    layers: list[KV] = field(default_factory=list)


def rotary_table(model: Any, positions: int) -> Rotary:
    """The rotary embedding of the positions 0..positions-1, [positions, 1, D]."""
    with torch.no_grad():
        return rotary_embedding(model, torch.arange(positions)[None])


def rotary_embedding(model: Any, position: torch.Tensor) -> Rotary:
    """The rotary embedding at the positions [R, Q], as [R * Q, 1, D]."""
    inner = without_wrappers(model).model
    cos, sin = inner.rotary_emb(inner.norm.weight, position)
    return cos.flatten(0, 1)[:, None], sin.flatten(0, 1)[:, None]


def embedded(inner: Any, ids: torch.Tensor) -> torch.Tensor:
    """The embeddings [N, H] of the tokens ``ids`` [N].

    Every token that is read has a gradient. ``torch.nn.Embedding`` leaves out that of the model's padding
    token, which in some models ends every turn; here nothing is padded.
    """
    table = inner.embed_tokens
    if type(table) is torch.nn.Embedding:
        return F.embedding(ids, table.weight)
    out: torch.Tensor = table(ids)  # an adapter's
    return out


def by_blocks(function: Callable[..., torch.Tensor], *values: torch.Tensor) -> torch.Tensor:
    """``function`` of all ``values`` [N, ...], which takes each of the N by itself, ``BLOCK`` at a time.

    At once under autograd: what is kept for the backward pass fills the caches anyway (measured).
    """
    if len(values[0]) <= BLOCK or torch.is_grad_enabled():
        return function(*values)
    parts = zip(*(torch.split(value, BLOCK) for value in values), strict=True)
    return torch.cat([function(*part) for part in parts])


def rotates(attention: Any) -> bool:
    """Whether positions are rotated in this layer; only SmolLM3 has the attribute, and layers without."""
    return bool(getattr(attention, "use_rope", True))


def project_heads(
    attention: Any, name: Literal["q", "k", "v"], x: torch.Tensor, rotary: Rotary | None
) -> torch.Tensor:
    """Queries, keys or values [N, heads, D] of normed states [N, H].

    Values take no rotary embedding, nor do the queries and keys of SmolLM3's layers without positions.
    """
    if not rotates(attention):
        rotary = None
    project = getattr(attention, f"{name}_proj")
    norm = getattr(attention, f"{name}_norm", None)  # only Qwen3 has them

    def split(x: torch.Tensor, *rotary: torch.Tensor) -> torch.Tensor:
        out = apply_linear(project, x).view(len(x), -1, attention.head_dim)
        if norm is not None:
            out = F.rms_norm(out, (attention.head_dim,), norm.weight, norm.variance_epsilon)
        if not rotary:
            return out
        first, second = out.chunk(2, dim=-1)
        return out * rotary[0] + torch.cat([-second, first], dim=-1) * rotary[1]

    return by_blocks(split, x, *(rotary or ()))


def normed(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """States [N, H] through one of the model's norms."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def rest_of_layer(layer: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Output projection and MLP of a layer, for states [N, H] and the attention's result [N, heads * D]."""
    mlp = layer.mlp

    def rest(x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = x + apply_linear(layer.self_attn.o_proj, attended)
        y = normed(x, layer.post_attention_layernorm)
        gate, up = apply_linear(mlp.gate_proj, y), apply_linear(mlp.up_proj, y)
        return x + apply_linear(mlp.down_proj, F.silu(gate) * up)

    return by_blocks(rest, x, attended)


def last_logits(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Logits [S, V] of final states [S, H].

    Where weights are not reordered, the columns for a few states are computed in blocks, which keeps the
    vocabulary's matrix in the processor's caches. Every logit is the same sum.
    """
    x, head = normed(x, model.model.norm), model.lm_head
    few = len(x) <= BLOCKED_HEAD_MAX_STATES and not torch.is_grad_enabled()
    plain = type(head) is torch.nn.Linear and head.bias is None
    large = plain and head.out_features > BLOCKED_HEAD_MIN_VOCABULARY
    if few and large and not reorders(x.dtype, x.shape[1]):
        return torch.cat([F.linear(x, part) for part in head.weight.split(HEAD_BLOCK_COLUMNS)], dim=-1)
    return apply_linear(head, x)


def forward(model: Any, tree: TokenTree, nodes: NDArray[np.int64], kv: TreeKV | None = None) -> torch.Tensor:
    """Logits [S, V] at the distinct ``nodes`` [S] of a tree. ``kv`` receives all keys and values."""
    if isinstance(model, AdapterOff):
        with model.model.disable_adapter():
            return forward(model.model, tree, nodes, kv)
    model = without_wrappers(model)
    inner = model.model
    width = tree.path.shape[1]
    depth, chosen = torch.from_numpy(tree.depth), torch.from_numpy(nodes)
    cos, sin = (table.index_select(0, depth) for table in rotary_table(model, width))
    attend_all, attend_last = causal_attention(tree), last_layer_attention(tree, nodes)
    x = embedded(inner, torch.from_numpy(tree.token))
    for layer in inner.layers:
        last = layer is inner.layers[-1]
        attention = layer.self_attn
        y = normed(x, layer.input_layernorm)
        key = project_heads(attention, "k", y, (cos, sin))
        value = project_heads(attention, "v", y, None)
        if kv is not None:
            kv.layers.append((key, value))
        if not last:
            query = project_heads(attention, "q", y, (cos, sin))
            attended = attend_all(query, key, value)
        else:
            x, y = x.index_select(0, chosen), y.index_select(0, chosen)
            rotary = cos.index_select(0, chosen), sin.index_select(0, chosen)
            attended = attend_last(project_heads(attention, "q", y, rotary), key, value)
        x = rest_of_layer(layer, x, attended)
    return last_logits(model, x)


class LayerKV(Protocol):
    """The KV cache of one layer for R rows."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor) -> KV:
        """Append keys and values [R, kv_heads, Q, D]; return all those of the rows, [R, kv_heads, W, D]."""
        ...


def extend(
    model: Any,
    cache: Sequence[LayerKV],
    ids: torch.Tensor,
    rotary: Rotary,
    mask: torch.Tensor,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """Append the tokens ``ids`` [R, Q] to the R rows of a KV cache; logits [S, V] after the last of them.

    ``rotary`` [R * Q, 1, D]: of the tokens' positions. ``mask`` [R, 1, Q, W] is added to the scores. ``rows``
    [S]: whose logits are needed; None: those of all R.
    """
    model = without_wrappers(model)
    inner = model.model
    count, size = ids.shape
    x = embedded(inner, ids.reshape(-1))
    ends = torch.arange(size - 1, count * size, size)

    def by_row(values: torch.Tensor) -> torch.Tensor:
        return values.view(count, -1, *values.shape[1:]).transpose(1, 2)

    for layer, kv in zip(inner.layers, cache, strict=True):
        attention = layer.self_attn
        y = normed(x, layer.input_layernorm)
        key, value = kv.update(
            by_row(project_heads(attention, "k", y, rotary)), by_row(project_heads(attention, "v", y, None))
        )
        if layer is inner.layers[-1] and size > 1:
            x, y, mask = x[ends], y[ends], mask[:, :, -1:]
            rotary = rotary[0][ends], rotary[1][ends]
        query = by_row(project_heads(attention, "q", y, rotary))
        attended = attend(query, key, value, mask).reshape(len(x), -1)
        if layer is inner.layers[-1] and rows is not None:
            x, attended = x[rows], attended[rows]
        x = rest_of_layer(layer, x, attended)
    return last_logits(model, x)
