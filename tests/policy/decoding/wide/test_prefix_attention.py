"""Attention over a shared prefix and own keys, put together from two parts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from repro_rl.policy.decoding.wide import prefix_attention
from repro_rl.policy.decoding.wide.prefix_attention import (
    attend_flash,
    attend_prefix,
    attend_single,
    merge_parts,
)

HEADS, KV, SIZE = 6, 2, 8
KINDS = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)]


def states(*shape: int, kind: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(kind)


def test_two_parts_by_hand():
    """Scores log 1 and log 3 apart: weights 1/4 and 3/4; the parts know only their own sums."""
    own = torch.tensor([[[1.0]]]), torch.tensor([[math.log(1.0)]])
    prefix = torch.tensor([[[5.0]]]), torch.tensor([[math.log(3.0)]])
    assert merge_parts(own, prefix).item() == pytest.approx(4.0)


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
@pytest.mark.parametrize("slow_mkl", [False, True])
@pytest.mark.parametrize("chunk", [1, 2])
def test_one_token_a_row(kind, tolerance, slow_mkl, chunk, monkeypatch):
    """Rows of several lengths over a part of a wider table, as one call of torch's own over each.

    On some processors keys of bfloat16 are copied, for ``chunk`` rows at a time.
    """
    monkeypatch.setattr(prefix_attention, "mkl_leaves_avx512", lambda: slow_mkl)
    monkeypatch.setattr(prefix_attention, "CHUNK_BYTES", chunk * 4 * KV * 7 * SIZE)
    rows, width, lengths = 5, 7, [7, 1, 4, 6, 7]
    query = states(rows, KV, HEADS // KV, SIZE, kind=kind, seed=0)
    table = states(2, rows, KV, 11, SIZE, kind=kind, seed=1)
    hidden = torch.arange(width) >= torch.tensor(lengths)[:, None]
    mask = torch.zeros(rows, width).masked_fill(hidden, -torch.inf)[:, None, None].to(kind)
    before = query.clone()
    out, sums = attend_single(query, table[0, :, :, :width], table[1, :, :, :width], mask)
    assert torch.equal(query, before)
    for row, length in enumerate(lengths):
        keys, values = table[:, row, :, :length].float()
        flat = query[row].float().reshape(HEADS, 1, SIZE)
        expected = F.scaled_dot_product_attention(flat[None], keys[None], values[None], enable_gqa=True)
        assert torch.allclose(out[row].float().reshape(HEADS, SIZE), expected[0, :, 0], atol=tolerance)
        scores = torch.einsum("kgd,kwd->kgw", query[row].float(), keys) / SIZE**0.5
        assert torch.allclose(sums[row], torch.logsumexp(scores, -1), atol=tolerance)


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
def test_a_prefix_and_own_keys_are_one_softmax(kind, tolerance):
    count, shared, own = 5, 9, 4
    query = states(count, HEADS, SIZE, kind=kind, seed=0)
    prefix = states(2, KV, shared, SIZE, kind=kind, seed=1)
    columns = states(2, KV, own, SIZE, kind=kind, seed=2)
    part = attend_flash(query.transpose(0, 1)[None], columns[0][None], columns[1][None])
    rest = part[0][0].transpose(0, 1), part[1][0].transpose(0, 1)
    merged = merge_parts(rest, attend_prefix(query, prefix[0], prefix[1]))
    keys, values = torch.cat([prefix, columns], dim=2).float()
    expected = F.scaled_dot_product_attention(
        query.float().transpose(0, 1)[None], keys[None], values[None], enable_gqa=True
    )[0].transpose(0, 1)
    assert merged.dtype == kind
    assert torch.allclose(merged.float(), expected, atol=tolerance)
