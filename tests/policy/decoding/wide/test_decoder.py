"""Ragged passes over slots: logits are those of the model over each whole sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro_rl.policy.decoding.kv_slots import SlotTable
from repro_rl.policy.decoding.sampling import DecodeBatch
from repro_rl.policy.decoding.wide import prefix_store
from repro_rl.policy.decoding.wide.decoder import WidePromptDecoder, WideSlots, is_wide
from repro_rl.policy.decoding.wide.prefix_store import PrefixStore
from support.models import FAMILIES, family, network

VOCABULARY = 23


class Told:
    """Conversations, and every token they were given."""

    def __init__(self, model, rows: int, most_tokens: int = 64):
        self.model, self.table = model, SlotTable()
        self.store = PrefixStore(model.config.num_hidden_layers)
        self.slots = WideSlots(model, self.table, self.store, range(rows), most_tokens)
        self.ids: dict[int, list[int]] = {row: [] for row in range(rows)}

    def check(self, appended: dict[int, list[int]], atol: float = 2e-5) -> None:
        blocks = self.slots.divide([(row, tuple(ids)) for row, ids in appended.items()])
        slots = list(blocks)[::-1]  # in any order
        logits = self.slots.append(slots, [blocks[slot] for slot in slots])
        for row, ids in appended.items():
            self.ids[row] += ids
            whole = self.model(input_ids=torch.tensor([self.ids[row]]), use_cache=False).logits[0, -1]
            found = logits[slots.index(self.table.slot(row))]
            assert torch.allclose(found, whole, atol=atol), (row, float((found - whole).abs().max()))
            assert self.table.lengths[self.table.slot(row)] == len(self.ids[row])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("most_tokens", [3, 64])
@torch.no_grad()
def test_any_blocks_in_any_slots(name, most_tokens, monkeypatch):
    """Shared prefixes, single tokens, blocks of unequal lengths, slots that lie apart."""
    monkeypatch.setattr(prefix_store, "MIN_PREFIX", 4)
    rng = np.random.default_rng(0)

    def some(count: int) -> list[int]:
        return rng.integers(VOCABULARY, size=count).tolist()

    told = Told(family(name), rows=6, most_tokens=most_tokens)
    told.table.add([0, 1, 2])
    told.table.add([3, 4])
    told.table.add([5])
    first = {
        row: ids for rows, ids in (((0, 1, 2), some(7)), ((3, 4), some(5)), ((5,), some(2))) for row in rows
    }
    told.check(first)
    told.check({row: some(1) for row in range(6)})
    assert told.store.prefix_length(told.table.slot(1)) == 7
    assert told.store.prefix_length(told.table.slot(5)) == 0
    told.check({0: some(3), 4: some(1), 5: some(6), 2: some(2)})
    told.check({row: some(1) for row in (1, 2, 5)})
    told.table.remove(2)
    told.store.release(told.table.free[0])
    told.check({row: some(2) for row in (0, 1, 3, 4, 5)})


@torch.no_grad()
def test_prompts_in_a_window_and_blocks_behind_them(monkeypatch):
    """Rows of equal prompts part at their first token; given blocks follow sampled tokens."""
    monkeypatch.setattr(prefix_store, "MIN_PREFIX", 4)
    model = network("llama")
    rng = np.random.default_rng(0)
    start = rng.integers(VOCABULARY, size=6).tolist()
    prompts = [(*start, 1, 2, 3), (*start, 4), (*start, 5, 6)]
    decoder = WidePromptDecoder(model, most_tokens=64)
    logits = decoder.prefill(prompts, new_tokens=5)

    def check(logits: torch.Tensor, texts: list[tuple[int, ...]]) -> None:
        for found, ids in zip(logits, texts, strict=True):
            whole = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert torch.allclose(found, whole, atol=2e-5)

    check(logits, prompts)
    # rows 0 and 1 have prompt 0, row 2 has ended, row 3 has prompt 2
    branches = DecodeBatch(np.array([0, 0, 2]), np.array([7, 8, 9]), np.array([0, 1, 3]), np.array([0, 1, 2]))
    texts = [(*prompts[0], 7), (*prompts[0], 8), (*prompts[2], 9)]
    check(decoder.advance(branches), texts)
    assert decoder.takes([1, 4])
    branches = DecodeBatch(np.array([0, 2]), np.array([1, 2]), np.array([0, 3]), np.array([0, 1]))
    texts = [(*texts[0], 1), (*texts[2], 2, 3, 4, 5)]
    check(decoder.advance_blocks(branches, [(1,), (2, 3, 4, 5)]), texts)


@torch.no_grad()
def test_a_shared_first_turn_is_computed_and_stored_once():
    model = network("llama", num_hidden_layers=2)
    told = Told(model, rows=8, most_tokens=1000)
    told.table.add(range(8))
    told.check({row: [1, 2, 3] * 34 for row in range(8)})
    table = told.store.nbytes
    told.check({row: [row] for row in range(8)})
    told.check({row: [row, 5] for row in range(8)})
    token = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, dimensions, bytes
    assert told.store.nbytes == 8 * table + 102 * token
    assert [told.table.lengths[slot] for slot in range(8)] == [105] * 8


def test_which_models_are_wide():
    assert not is_wide(network("llama"))
    assert is_wide(network("llama", hidden_size=256))
