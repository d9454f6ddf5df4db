"""Slots of the KV cache: who is in which, when they are divided, copied and used again."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings, strategies as st

from repro_rl.policy.decoding.kv_slots import Division, SlotCache, SlotTable


def test_equal_conversations_share_a_slot_until_they_differ():
    table = SlotTable()
    assert table.add([10, 11, 12]) == 0
    table.lengths[0] = 5
    assert (10 in table, 13 in table, len(table)) == (True, False, 1)
    assert table.divide([(10, (1,)), (11, (1,)), (12, (1,))]) == Division({0: (1,)}, [])
    table.lengths[0] = 6
    division = table.divide([(10, (2,)), (11, (3,)), (12, (2,))])
    assert division == Division({0: (2,), 1: (3,)}, [(0, 1)])
    assert [table.slot(row) for row in (10, 11, 12)] == [0, 1, 0]
    assert table.lengths == [6, 6]
    assert table.members(0) == {10, 12}


def test_conversations_that_append_nothing_keep_their_slot():
    table = SlotTable()
    table.add([0, 1, 2])
    table.lengths[0] = 4
    assert table.divide([(1, (7,)), (2, (8,))]) == Division({1: (7,), 2: (8,)}, [(0, 1), (0, 2)])
    assert [table.slot(row) for row in (0, 1, 2)] == [0, 1, 2]


def test_new_slots_are_taken_in_the_order_of_the_conversations():
    table = SlotTable()
    table.add([0, 1, 2, 3])
    division = table.divide([(3, (9,)), (0, (1,)), (2, (5,)), (1, (9,))])
    assert division.blocks == {0: (9,), 1: (1,), 2: (5,)}
    assert [table.slot(row) for row in range(4)] == [1, 0, 2, 0]


def test_slots_without_a_conversation_are_used_again_the_lowest_first():
    table = SlotTable()
    for row in range(4):
        table.lengths[table.add([row])] = 3
    for row in (2, 0, 7):  # 7 is not there
        table.remove(row)
    assert (table.free, table.lengths) == ([0, 2], [0, 3, 0, 3])
    assert (table.add([5]), table.add([6]), table.add([7])) == (0, 2, 4)
    assert table.free == []


@given(st.lists(st.lists(st.integers(0, 2), min_size=8, max_size=8), min_size=1, max_size=6), st.randoms())
@settings(deadline=None)
def test_two_conversations_share_a_slot_only_if_they_are_equal(steps, random):
    table = SlotTable()
    texts: dict[int, list[int]] = {row: [] for row in range(8)}
    table.add(range(8))
    for tokens in steps:
        rows = [row for row in texts if random.random() < 0.8]
        blocks = table.divide([(row, (tokens[row],)) for row in rows]).blocks
        for row in rows:
            texts[row].append(tokens[row])
            assert blocks[table.slot(row)] == (tokens[row],)
        for slot in blocks:
            table.lengths[slot] += 1
        if len(texts) > 4 and random.random() < 0.5:
            gone = random.choice(list(texts))
            del texts[gone]
            table.remove(gone)
        for row in texts:
            assert table.lengths[table.slot(row)] == len(texts[row])
            assert row in table.members(table.slot(row))
        for slot in range(len(table)):
            assert len({tuple(texts[row]) for row in table.members(slot)}) <= 1
            assert (slot in table.free) == (not table.members(slot))


def write(cache: SlotCache, slots: list[int], columns: list[list[int]], values: torch.Tensor) -> torch.Tensor:
    """Write states [R, 1, Q, 1] through the first layer; returns the keys that the pass sees."""
    now = cache.now
    now.rows, now.columns = torch.tensor(slots), torch.tensor(columns)
    now.first = slots[0] if slots == list(range(slots[0], slots[0] + len(slots))) else None
    now.width = int(now.columns.max()) + 1
    keys, seen = cache.layers[0].update(values, -values)
    assert torch.equal(keys, -seen)
    return keys[:, 0, :, 0]


def test_the_cache_grows_and_keeps_what_it_holds():
    cache = SlotCache(layers=2)
    cache.reserve(2, 4)
    assert cache.shape == (2, 128)
    write(cache, [0, 1], [[0, 1], [2, 3]], torch.tensor([[[[1.0], [2.0]]], [[[3.0], [4.0]]]]))
    cache.reserve(2, 129)
    assert cache.shape == (2, 256)
    cache.reserve(3, 1)
    assert cache.shape == (4, 256)  # doubled
    cache.reserve(500, 1)
    assert cache.shape == (500, 256)
    cache.reserve(501, 1)
    assert cache.shape == (564, 256)  # not doubled for ever
    seen = write(cache, [1], [[4]], torch.tensor([[[[5.0]]]]))
    assert seen.tolist() == [[0, 0, 3, 4, 5]]
    cache.copy([(1, 7), (0, 3)], width=4, device=torch.device("cpu"))
    seen = write(cache, [7, 3], [[4], [2]], torch.tensor([[[[6.0]]], [[[9.0]]]]))
    assert seen.tolist() == [[0, 0, 3, 4, 6], [1, 2, 9, 0, 0]]
    assert write(cache, [0], [[2]], torch.tensor([[[[8.0]]]])).tolist() == [[1, 2, 8]]


def test_neighbouring_slots_are_seen_without_a_copy():
    cache = SlotCache(layers=1)
    cache.reserve(4, 8)
    values = torch.from_numpy(np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1))
    keys = write(cache, [1, 2, 3], [[0], [0], [0]], values)
    stored = cache.layers[0].keys
    assert stored is not None
    assert keys.data_ptr() == stored[1].data_ptr()
    assert stored[:, 0, 0, 0].tolist() == [0, 0, 1, 2]
