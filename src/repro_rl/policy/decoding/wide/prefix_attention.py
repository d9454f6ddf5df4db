"""Attention of new tokens over their own keys and over a prefix that many rows share, on a CPU.

The softmax over both is put together from two partial results and the logarithms of their sums. So the keys
of a shared prefix are read once for all rows that share it, in one large matrix product. This is Hydragen
(Juravsky et al. 2024, arXiv 2402.05099, section 3). Queries of one key head are grouped, so no key is ever
repeated.
"""

from __future__ import annotations

import torch

from repro_rl.policy.model.processor import mkl_leaves_avx512

CHUNK_BYTES = 3 * 2**20  # of float32 keys that are copied at a time, so that they stay in the caches
FEWEST_COPIED = 4  # rows; for fewer the kernel is as fast

# An attention result, and the logarithm of the sum of its exponentiated scores.
Part = tuple[torch.Tensor, torch.Tensor]


def attend_flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = False,
) -> Part:
    """Result [B, heads, Q, D] and log-sums [B, heads, Q] over keys and values [B, kv_heads, W, D].

    ``mask`` is added to the scores; it broadcasts to [B, heads, Q, W]. ``causal`` needs Q = W. Without either
    every key is seen. This is what ``scaled_dot_product_attention`` runs on a CPU; the public function does
    not return the sums.
    """
    result: Part = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, is_causal=causal, attn_mask=mask
    )
    return result


def attend_single(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> Part:
    """One token a row: [R, kv_heads, G, D] over [R, kv_heads, W, D]; log-sums [R, kv_heads, G].

    ``mask`` [R, 1, 1, W] is added to the scores. In float32 two batched products are the fastest way to so
    few queries (measured). In bfloat16 a product of scores would round them to 8 bits, so the kernel above is
    used. It calls a matrix product for each key head of each row. On AMD's processors that takes 1.4 times as
    long as products of float32 copies of the keys. They are made for a few rows at a time, ``CHUNK_BYTES``.
    """
    if query.dtype == torch.float32:
        return _attend_by_products(query, key, value, mask)
    if len(query) < FEWEST_COPIED or not mkl_leaves_avx512():
        return attend_flash(query, key, value, mask.expand(-1, -1, query.shape[2], -1))
    rows = max(1, CHUNK_BYTES // (4 * key[0].numel()))
    chunks = zip(*(torch.split(part, rows) for part in (query, key, value, mask.float())), strict=True)
    parts = [_attend_by_products(q.float(), k.float(), v, m) for q, k, v, m in chunks]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> Part:
    """As ``attend_single``, by batched products. All but the values, and so the result, are float32."""
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3)).add_(mask)
    sums = torch.logsumexp(scores, dim=-1)
    weights = scores.sub_(sums[..., None]).exp_()
    return torch.matmul(weights.to(value.dtype), value), sums


def merge_parts(own: Part, prefix: Part) -> torch.Tensor:
    """The result over both sets of keys, in the shape of the partial results."""
    share = torch.sigmoid(prefix[1] - own[1])[..., None]
    return torch.lerp(own[0].float(), prefix[0].float(), share).to(own[0].dtype)


def attend_prefix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Part:
    """All queries [N, heads, D] over one prefix [kv_heads, P, D], every key of which they see.

    Result [N, heads, D], log-sums [N, heads].
    """
    count, heads, size = query.shape
    kv_heads = key.shape[0]
    grouped = query.view(count, kv_heads, -1, size).transpose(0, 1).reshape(1, kv_heads, -1, size)
    out, sums = attend_flash(grouped, key[None], value[None])
    return (
        out.reshape(kv_heads, count, -1, size).transpose(0, 1).reshape(count, heads, size),
        sums.reshape(kv_heads, count, -1).transpose(0, 1).reshape(count, heads),
    )
