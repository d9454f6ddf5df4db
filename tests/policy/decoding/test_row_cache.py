"""Rows of a KV cache: where the tokens of a pass are written, what they see, and what survives growing."""

from __future__ import annotations

import numpy as np
import torch

from repro_rl.policy.decoding.row_cache import RowCache, RowPass, enlarged, left_padded


def test_blocks_are_padded_on_the_left_and_padding_lies_behind_their_rows():
    """Row 2 has 5 tokens and gets two, row 0 has 3 and gets four, row 1 has 4 and gets none."""
    ids, columns = left_padded([2, 0, 1], {2: (7, 8), 0: (1, 2, 3, 4)}, [3, 4, 5], pad_id=9)
    assert ids.tolist() == [[9, 9, 7, 8], [1, 2, 3, 4], [9, 9, 9, 9]]
    assert columns.tolist() == [[7, 8, 5, 6], [3, 4, 5, 6], [4, 5, 6, 7]]
    assert ids.dtype == columns.dtype == np.int64


def test_a_query_sees_its_row_up_to_its_own_column():
    low = torch.finfo(torch.bfloat16).min
    now = RowPass(columns=torch.tensor([[3, 1], [0, 2]]), width=4)
    mask = now.mask(torch.bfloat16)
    assert mask.dtype == torch.bfloat16
    assert mask.tolist() == [
        [[[0, 0, 0, 0], [0, 0, low, low]]],
        [[[0, low, low, low], [0, 0, 0, low]]],
    ]


def test_states_are_written_and_seen_in_their_rows_and_kept_when_the_cache_grows():
    cache = RowCache(layers=1)
    cache.resize(3, 4)
    now, layer = cache.now, cache.layers[0]
    states = torch.arange(2 * 1 * 2 * 1, dtype=torch.float32).view(2, 1, 2, 1) + 1  # [R, kv_heads, Q, D]
    now.rows, now.columns, now.width = torch.tensor([2, 0]), torch.tensor([[0, 1], [1, 2]]), 3
    keys, values = layer.update(states, 10 * states)
    assert keys[:, 0, :, 0].tolist() == [[1, 2, 0], [0, 3, 4]]
    assert torch.equal(values, 10 * keys)
    now.first, now.rows, now.columns = 1, torch.tensor([1, 2]), torch.tensor([[0], [2]])
    keys, _ = layer.update(states[:, :, :1], states[:, :, :1])
    assert keys[:, 0, :, 0].tolist() == [[1, 0, 0], [1, 2, 3]]  # rows 1 and 2, as a view
    assert not cache.resize(3, 4)
    assert cache.resize(4, 6)
    assert layer.keys[:, 0, :, 0].tolist() == [
        [0, 3, 4, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [1, 2, 3, 0, 0, 0],
        [0] * 6,
    ]
    cache.copy([(2, 3), (0, 1)], 2, torch.device("cpu"))
    assert layer.keys[:, 0, :2, 0].tolist() == [[0, 3], [0, 3], [1, 2], [1, 2]]
    assert cache.bytes() == 2 * 4 * 6 * 4


def test_enlarged_keeps_what_is_there():
    old = torch.ones(1, 2, 3, 1, dtype=torch.bfloat16)
    new = enlarged(old, 2, 4)
    assert new.dtype == old.dtype
    assert torch.equal(new[:1, :, :3], old)
    assert new.sum() == 6
