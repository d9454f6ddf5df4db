"""Decode steps over compiled kernels: logits are those of the model over each whole sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from repro_rl.policy.decoding.kernels.library import load_kernels
from repro_rl.policy.decoding.kv_slots import SlotTable
from repro_rl.policy.decoding.wide import compiled_pass, prefix_store
from repro_rl.policy.decoding.wide.compiled_pass import find_kernels
from repro_rl.policy.decoding.wide.decoder import WideSlots
from repro_rl.policy.decoding.wide.prefix_store import PrefixStore
from repro_rl.study.model_facts import model_facts
from support.foreign_models import LLAMA_LIKE, save_foreign
from support.kernels import needs_kernels
from support.models import FAMILIES, family, load_cpu, network

VOCABULARY = 23
# Heads of 32 numbers; three query heads to a key head are a width of 96.
SIZES: dict[str, Any] = {"head_dim": 32, "hidden_size": 128}


def served(name: str, **more: Any) -> Any:
    """A network of one of ``FAMILIES`` whose sizes the kernels take."""
    heads = FAMILIES[name][1].get("num_attention_heads", 4)
    return family(name, **{"head_dim": 32, "hidden_size": 32 * heads} | more)


class Decoding:
    """Conversations of one row a slot, decoded by both kinds of passes."""

    def __init__(self, model: Any, rows: int):
        self.model = model
        kernels = find_kernels("auto", model).kernels
        assert kernels is not None
        self.sides = []
        for kind in (kernels, None):
            table, store = SlotTable(), PrefixStore(model.config.num_hidden_layers)
            self.sides.append(WideSlots(model, table, store, range(rows), 64, kind))

    def begin(self, groups: list[list[int]]) -> None:
        for side in self.sides:
            for group in groups:
                side.slots.add(group)

    def append(self, appended: dict[int, list[int]]) -> list[torch.Tensor]:
        """Logits [R, V] of both sides, rows in order."""
        found = []
        for side in self.sides:
            blocks = side.divide([(row, tuple(ids)) for row, ids in appended.items()])
            logits = side.append(list(blocks), list(blocks.values()))
            order = {slot: index for index, slot in enumerate(blocks)}
            found.append(logits[[order[side.slots.slot(row)] for row in appended]])
        return found


@needs_kernels
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_every_family_and_any_number_of_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared prefixes and rows without one, slots that lie apart, one to many rows."""
    monkeypatch.setattr(prefix_store, "MIN_PREFIX", 4)
    monkeypatch.setattr(compiled_pass, "ROWS_OF_A_GROUP", 3)
    model = served(name)
    rng = np.random.default_rng(0)
    told: dict[int, list[int]] = {row: [] for row in range(9)}
    decoding = Decoding(model, rows=9)
    decoding.begin([[0, 1, 2, 3, 4], [5, 6], [7], [8]])

    def check(appended: dict[int, list[int]]) -> None:
        for row, ids in appended.items():
            told[row] += ids
        logits, torch_logits = decoding.append(appended)
        for index, row in enumerate(appended):
            whole = model(input_ids=torch.tensor([told[row]]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[index], whole, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(logits[index], torch_logits[index], rtol=1e-4, atol=1e-4)

    def some(count: int) -> list[int]:
        return rng.integers(VOCABULARY, size=count).tolist()

    first = {row: ids for rows, ids in (((0, 1, 2, 3, 4), some(7)), ((5, 6), some(5)), ((7,), some(6)))
             for row in rows}  # fmt: skip
    check(first | {8: some(2)})
    check({row: [row] for row in range(9)})  # each goes its own way
    check({row: some(1) for row in range(9)})
    check({0: some(3), 4: some(1)})
    for rows in ((1, 2, 3, 4, 6, 8), (3, 5, 7), (6, 8), (2,), (8,)):
        check({row: some(1) for row in rows})


@needs_kernels
@torch.no_grad()
def test_bfloat16_is_as_near_to_float32_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divergence from the distribution that float32 has, of both sides."""
    monkeypatch.setattr(prefix_store, "MIN_PREFIX", 4)
    exact = network("qwen3", vocabulary=64, **SIZES, initializer_range=0.1)
    decoding = Decoding(network("qwen3", vocabulary=64, **SIZES, initializer_range=0.1).bfloat16(), rows=6)
    exact.load_state_dict(decoding.model.float().state_dict())
    decoding.model.bfloat16()
    decoding.begin([list(range(6))])
    rng = np.random.default_rng(1)
    told = rng.integers(64, size=8).tolist()
    decoding.append(dict.fromkeys(range(6), told))
    divergence = np.zeros(2)
    texts = [list(told) for _ in range(6)]
    for _ in range(8):
        tokens = rng.integers(64, size=6).tolist()
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
        whole = torch.log_softmax(exact(input_ids=torch.tensor(texts)).logits[:, -1], -1)
        for side, logits in enumerate(decoding.append({row: [tokens[row]] for row in range(6)})):
            found = torch.log_softmax(logits.float(), -1)
            divergence[side] += float((whole.exp() * (whole - found)).sum(-1).mean())
    assert divergence[0] < 1.5 * divergence[1] + 1e-4
    assert divergence[1] > 1e-5  # bfloat16 rounds


@needs_kernels
def test_which_models_are_served() -> None:
    assert find_kernels("auto", network("llama", **SIZES)).kernels is load_kernels(torch.float32)
    assert find_kernels("off", network("llama", **SIZES)).reason == "policy.kernels is off"
    narrow = find_kernels("auto", network("llama"))
    assert (narrow.kernels, narrow.reason) == (None, "they do not serve layers of these sizes")


@needs_kernels
def test_a_policy_of_a_wide_model_takes_them(tiny_folder: Any, tmp_path: Any) -> None:
    """Unless policy.kernels says otherwise; the manifest and doctor say which."""
    sizes = LLAMA_LIKE | {"hidden_size": 256, "num_attention_heads": 4, "head_dim": 64}
    folder = save_foreign(tmp_path / "wide", tiny_folder, "llama", **sizes)
    for switch, taken, words in (
        ("auto", True, "compiled decode steps"),
        ("off", False, "decode steps by torch: policy.kernels is off"),
    ):
        policy = load_cpu(folder, kernels=switch)
        assert (policy.decode_kernels is not None) == taken
        assert policy.describe()["kernels"] is taken
        assert model_facts(policy, "adamw")["sampling"].endswith(f"padded; {words}")
    tiny = load_cpu(tiny_folder)
    assert tiny.describe()["kernels"] is False
    assert model_facts(tiny, "adamw")["sampling"].endswith("padded; decode steps by torch (a narrow model)")
