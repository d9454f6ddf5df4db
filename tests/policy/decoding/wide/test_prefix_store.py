"""Keys and values of slots: what is shared is stored once, and tables grow as they are used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro_rl.policy.decoding.wide import prefix_store
from repro_rl.policy.decoding.wide.prefix_store import PrefixStore
from repro_rl.policy.forward.packed import TreeKV
from repro_rl.policy.forward.tree import build_tree

LAYERS = 2


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(prefix_store, "MIN_PREFIX", 3)


def put(store: PrefixStore, slot: int, column: int, values: list[float]) -> None:
    """Keys ``values`` [T] and their negatives as values, one head of one dimension."""
    states = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
    columns = torch.arange(column, column + len(values))
    store.reserve(slot + 1, column + len(values))
    for layer in range(LAYERS):
        store.write(layer, torch.full((len(values),), slot), columns, (states + 100 * layer, -states))


def held(store: PrefixStore, slot: int, length: int, layer: int = 0) -> list[float]:
    """The keys of a slot, its prefix first."""
    prefix = store.prefix(slot)
    first = [] if prefix is None else prefix.layers[layer][0].flatten().tolist()
    return [*first, *store.seen(layer, slot, slot + 1, length - len(first))[0].flatten().tolist()]


def test_a_long_beginning_is_shared_and_a_short_one_copied():
    store = PrefixStore(LAYERS)
    put(store, 0, 0, [1, 2, 3, 4])
    store.reserve(4, 0)
    store.fork([(0, 1), (0, 2)], [4, 0, 0, 0])
    assert store.prefix(0) is store.prefix(1) is store.prefix(2) is not None
    assert [store.prefix_length(slot) for slot in range(4)] == [4, 4, 4, 0]
    put(store, 1, 0, [5])
    put(store, 2, 0, [6, 7])
    store.fork([(1, 3)], [4, 5, 6, 0])  # one token of its own
    assert store.prefix(3) is store.prefix(1)
    put(store, 3, 1, [8])
    assert held(store, 1, 5) == [1, 2, 3, 4, 5]
    assert held(store, 2, 6) == [1, 2, 3, 4, 6, 7]
    assert held(store, 3, 6) == [1, 2, 3, 4, 5, 8]
    assert held(store, 3, 6, layer=1) == [101, 102, 103, 104, 105, 108]


def test_a_prefix_grows_by_what_becomes_shared():
    store = PrefixStore(LAYERS)
    put(store, 0, 0, [1, 2, 3])
    store.reserve(3, 0)
    store.fork([(0, 1)], [3, 0, 0])
    short = store.prefix(1)
    put(store, 0, 0, [4, 5, 6])
    store.fork([(0, 2)], [6, 3, 0])
    assert store.prefix(1) is short is not store.prefix(0) is store.prefix(2)
    put(store, 2, 0, [9])
    assert held(store, 0, 6) == [1, 2, 3, 4, 5, 6]
    assert held(store, 2, 7) == [1, 2, 3, 4, 5, 6, 9]
    assert held(store, 1, 3) == [1, 2, 3]


def test_a_released_prefix_is_freed_with_its_last_slot():
    store = PrefixStore(LAYERS)
    put(store, 0, 0, [1, 2, 3, 4])
    store.reserve(2, 0)
    table = store.nbytes
    store.fork([(0, 1)], [4, 0])
    assert store.nbytes - table == LAYERS * 2 * 4 * 4  # layers, keys and values, tokens, bytes
    store.release(0)
    assert store.nbytes > table
    store.release(1)
    assert store.nbytes == table


def test_tables_grow_by_little_more_than_is_used():
    store = PrefixStore(LAYERS)
    put(store, 0, 0, [1.0])
    assert store.nbytes == LAYERS * 2 * 4 * 128
    put(store, 1, 0, list(range(129)))
    assert store.nbytes == LAYERS * 2 * 4 * 2 * 256
    for length in range(1, 5000, 50):
        store.reserve(2, length)
        assert store.nbytes <= LAYERS * 2 * 4 * 2 * max(256, 17 / 16 * length + 178)
    assert held(store, 1, 129) == list(range(129))
    assert held(store, 0, 1) == [1.0]


@pytest.mark.parametrize("shared", [0, 2, 5])
def test_filled_from_a_tree(shared):
    rng = np.random.default_rng(shared)
    rows = [np.array([*range(10, 10 + shared), *rng.integers(50, 99, size=n)]) for n in (3, 1, 6)]
    tree = build_tree(rows)
    keys = torch.from_numpy(tree.token).float().view(-1, 1, 1)
    kv = TreeKV([(keys, -keys), (keys + 100, -keys)])
    store = PrefixStore(LAYERS)
    store.fill([0, 1], tree, [2, 0], kv)
    assert kv.layers == []
    assert store.prefix_length(0) == store.prefix_length(1) == (5 if shared == 5 else 0)
    assert held(store, 0, len(rows[2])) == rows[2].tolist()
    assert held(store, 1, len(rows[0]), layer=1) == (rows[0] + 100).tolist()
