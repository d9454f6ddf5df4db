"""The forward pass of Qwen2 and Qwen3 models over a token tree, on a CPU.

The same weights and the same arithmetic as the model of transformers, up to the last bits, with less work:
every distinct prefix is computed once and nothing is padded outside attention; the last layer, which for
small models is much of the network, is computed only where logits are wanted. Gradients flow to the model's
own parameters, so sampling, training and the reference may all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from repro_rl.policy.tree import TokenTree

BLOCK = 2048  # nodes at a time, so that what lies between two matrix products stays in the caches
KNOWN = ("Qwen2ForCausalLM", "Qwen3ForCausalLM")

Pair = tuple[torch.Tensor, torch.Tensor]


def packable(model: Any) -> bool:
    """Whether ``forward`` computes what ``model`` does: its architecture, settings, dtype and device.

    False as well where it was not measured to pay: on a GPU, and in half precision.
    """
    if type(model).__name__ not in KNOWN:
        return False
    config, inner = model.config, model.model
    return bool(
        all(
            type(p) is torch.nn.Parameter  # neither sharded nor quantised
            and p.device.type == "cpu"
            and p.dtype == torch.float32
            for p in model.parameters()
        )
        and config._attn_implementation in ("sdpa", "eager")
        and config.hidden_act == "silu"
        and config.attention_dropout == 0
        and not getattr(inner, "has_sliding_layers", True)
        and config.rope_parameters["rope_type"] == "default"
        and not inner.gradient_checkpointing
        and not torch.is_autocast_enabled("cpu")
    )


@dataclass(slots=True)
class KeysValues:
    """Rotated keys and values [N, kv_heads, D] of a tree's nodes, one pair a layer."""

    layers: list[Pair] = field(default_factory=list)


def rotation(model: Any, positions: int) -> Pair:
    """cos and sin [positions, 1, D] of the rotary embedding."""
    with torch.no_grad():
        return rotation_at(model, torch.arange(positions)[None])


def rotation_at(model: Any, position: torch.Tensor) -> Pair:
    """cos and sin [R * Q, 1, D] at the positions [R, Q]."""
    inner = model.model
    cos, sin = inner.rotary_emb(inner.embed_tokens.weight, position)
    return cos.flatten(0, 1)[:, None], sin.flatten(0, 1)[:, None]


def by_blocks(function: Callable[..., torch.Tensor], *values: torch.Tensor) -> torch.Tensor:
    """``function`` of all ``values`` [N, ...], which takes each of the N by itself, ``BLOCK`` at a time.

    At once under autograd: what is kept for the backward pass fills the caches anyway (measured).
    """
    if len(values[0]) <= BLOCK or torch.is_grad_enabled():
        return function(*values)
    parts = zip(*(torch.split(value, BLOCK) for value in values), strict=True)
    return torch.cat([function(*part) for part in parts])


def heads(attention: Any, name: str, x: torch.Tensor, turn: Pair | None) -> torch.Tensor:
    """Queries, keys or values ("q", "k", "v") [N, heads, D] of normed states [N, H]; ``turn``: cos, sin."""
    project = getattr(attention, f"{name}_proj")
    norm = getattr(attention, f"{name}_norm", None)  # Qwen3

    def split(x: torch.Tensor, *turn: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = project(x).view(len(x), -1, attention.head_dim)
        if not turn:
            return out
        if norm is not None:
            out = F.rms_norm(out, (attention.head_dim,), norm.weight, norm.variance_epsilon)
        first, second = out.chunk(2, dim=-1)
        return out * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]

    return by_blocks(split, x, *(turn or ()))


def normed(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """States [N, H] through one of the model's norms."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def finish(layer: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """The rest of a layer: states [N, H], and what their heads attended to [N, heads * D]."""
    mlp = layer.mlp

    def rest(x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = x + layer.self_attn.o_proj(attended)
        y = normed(x, layer.post_attention_layernorm)
        out: torch.Tensor = x + mlp.down_proj(F.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
        return out

    return by_blocks(rest, x, attended)


def last_logits(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Logits [S, V] of final states [S, H]."""
    logits: torch.Tensor = model.lm_head(normed(x, model.model.norm))
    return logits


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """[B, heads, T, D] over keys and values [B, kv_heads, W, D]; causal (T = W) without a mask [B, 1, T, W].

    The result is [B, T, heads, D].
    """
    out = F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2)


def gather(values: torch.Tensor, index: torch.Tensor, rows: int) -> torch.Tensor:
    """[rows, heads, W, D] from [N, heads, D] by flat ``index`` [rows * W]."""
    picked = values.flatten(1).index_select(0, index)
    return picked.view(rows, -1, *values.shape[1:]).transpose(1, 2)


def forward(
    model: Any, tree: TokenTree, wanted: NDArray[np.int64], kept: KeysValues | None = None
) -> torch.Tensor:
    """Logits [S, V] at the distinct nodes ``wanted`` [S]. ``kept`` receives the keys and values."""
    inner = model.model
    rows, width = tree.path.shape
    path = torch.from_numpy(tree.path).reshape(-1)
    back = torch.from_numpy(tree.owner * width + tree.depth)
    depth, some = torch.from_numpy(tree.depth), torch.from_numpy(wanted)
    cos, sin = (table.index_select(0, depth) for table in rotation(model, width))
    asking = _asking(tree, wanted)
    x = F.embedding(torch.from_numpy(tree.token), inner.embed_tokens.weight)
    for layer in inner.layers:
        last = layer is inner.layers[-1]
        attention = layer.self_attn
        y = normed(x, layer.input_layernorm)
        key, value = heads(attention, "k", y, (cos, sin)), heads(attention, "v", y, None)
        if kept is not None:
            kept.layers.append((key, value))
        if not last:
            query = heads(attention, "q", y, (cos, sin))
            spread = [gather(values, path, rows) for values in (query, key, value)]
            attended = attend(spread[0], spread[1], spread[2], None)
            attended = attended.reshape(rows * width, -1).index_select(0, back)
        else:
            x, y = x.index_select(0, some), y.index_select(0, some)
            query = heads(attention, "q", y, (cos.index_select(0, some), sin.index_select(0, some)))
            attended = asking(query, key, value)
        x = finish(layer, x, attended)
    return last_logits(model, x)


class Layer(Protocol):
    """Where one layer's keys and values are kept."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take new ones [R, kv_heads, Q, D]; return all those of these rows [R, kv_heads, W, D]."""
        ...


def go_on(
    model: Any,
    cache: Sequence[Layer],
    ids: torch.Tensor,
    turn: Pair,
    mask: torch.Tensor,
    wanted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Logits [S, V] after the last of the tokens ``ids`` [R, Q] that go on rows of a cache.

    ``turn``: cos, sin [R * Q, 1, D] of their positions. ``mask`` [R, 1, Q, W] is added to the scores.
    ``wanted`` [S]: rows; None: all of them.
    """
    inner = model.model
    rows, size = ids.shape
    x = F.embedding(ids.reshape(-1), inner.embed_tokens.weight)
    ends = torch.arange(size - 1, rows * size, size)

    def by_row(values: torch.Tensor) -> torch.Tensor:
        return values.view(rows, -1, *values.shape[1:]).transpose(1, 2)

    for layer, kept in zip(inner.layers, cache, strict=True):
        attention = layer.self_attn
        y = normed(x, layer.input_layernorm)
        key, value = kept.update(
            by_row(heads(attention, "k", y, turn)), by_row(heads(attention, "v", y, None))
        )
        if layer is inner.layers[-1] and size > 1:
            x, y, mask = x[ends], y[ends], mask[:, :, -1:]
            turn = turn[0][ends], turn[1][ends]
        query = by_row(heads(attention, "q", y, turn))
        attended = attend(query, key, value, mask).reshape(len(x), -1)
        if layer is inner.layers[-1] and wanted is not None:
            x, attended = x[wanted], attended[wanted]
        x = finish(layer, x, attended)
    return last_logits(model, x)


def _asking(
    tree: TokenTree, wanted: NDArray[np.int64]
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Attention [S, heads * D] of the ``wanted`` nodes' queries over all keys and values."""
    owners, block, counts = np.unique(tree.owner[wanted], return_inverse=True, return_counts=True)
    place = np.zeros(len(wanted), dtype=np.int64)  # of a node among the wanted ones of its owner
    by_owner = np.argsort(block, kind="stable")
    place[by_owner] = np.arange(len(wanted)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = len(owners), int(counts.max())
    width = int(tree.depth[wanted].max()) + 1
    which, reach = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    which[block, place] = np.arange(len(wanted))  # an empty cell asks for the first and is dropped
    reach[block, place] = tree.depth[wanted]
    mask = torch.from_numpy(np.arange(width) <= reach[:, :, None])[:, None]
    path = torch.from_numpy(np.ascontiguousarray(tree.path[owners, :width])).reshape(-1)
    asked, cell = torch.from_numpy(which).reshape(-1), torch.from_numpy(block * shape[1] + place)

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        count = len(owners)
        parts = gather(query, asked, count), gather(key, path, count), gather(value, path, count)
        return attend(*parts, mask).reshape(count * shape[1], -1).index_select(0, cell)

    return attention
