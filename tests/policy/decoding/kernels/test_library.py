"""The compiled kernels one by one, beside torch's own operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from repro_rl.policy.decoding.kernels.library import (
    DecodeKernels,
    HeadNorms,
    HeadStates,
    Prefixes,
    StepRows,
    load_kernels,
)
from support.kernels import needs_kernels

pytestmark = needs_kernels

KINDS = [torch.float32, torch.bfloat16]
# Results are rounded once; torch rounds after every operator.
TOLERANCE = {torch.float32: {"rtol": 1e-5, "atol": 2e-6}, torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2}}
HEADS, KV_HEADS, SIZE = 6, 2, 64
NO_PREFIX: Prefixes = np.zeros((0, 3), dtype=np.int64)


@pytest.fixture(params=KINDS, ids=["float32", "bfloat16"])
def kernels(request: pytest.FixtureRequest) -> DecodeKernels:
    return load_kernels(request.param)


def states(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check(found: torch.Tensor, expected: torch.Tensor, more: float = 1.0) -> None:
    """``more``: times the usual tolerance."""
    tolerance = {name: more * value for name, value in TOLERANCE[found.dtype].items()}
    torch.testing.assert_close(found.float(), expected.float(), **tolerance)


def test_sum_and_norm(kernels: DecodeKernels) -> None:
    x, added, weight = (
        states(*shape, seed=seed).to(kernels.dtype) for seed, shape in enumerate([(5, 48), (5, 48), (48,)])
    )
    total = x + added
    check(kernels.add_norm(x, added, weight, 1e-5), F.rms_norm(total, (48,), weight, 1e-5))
    assert torch.equal(x, total)  # bit for bit
    check(kernels.add_norm(x, None, weight, 1e-5), F.rms_norm(total, (48,), weight, 1e-5))
    assert torch.equal(x, total)


def test_rounding_is_that_of_torch() -> None:
    """Every bfloat16, the midpoints between two of them, infinities and NaN: bit for bit."""
    kernels = load_kernels(torch.bfloat16)
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    for step in (0.0, 2.0**-8, -(2.0**-8), 3 * 2.0**-9):
        x = every.clone()[None]
        added = (every.float() * step).to(torch.bfloat16)[None]
        total = x + added
        kernels.add_norm(x, added, torch.ones(x.shape[1], dtype=torch.bfloat16), 1e-5)
        same = (x.view(torch.int16) == total.view(torch.int16)) | (x.isnan() & total.isnan())
        assert same.all()


def test_the_gate_of_any_number(kernels: DecodeKernels) -> None:
    gates = torch.cat([torch.linspace(-100, 100, 4000), states(96, scale=4.0)]).to(kernels.dtype)
    up = states(len(gates), seed=1).to(kernels.dtype)
    check(kernels.gate(gates.clone(), up), F.silu(gates) * up)
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0] * 4).to(kernels.dtype)
    found = kernels.gate(odd.clone(), torch.ones_like(odd))
    assert found[:4].isfinite().tolist() == [False, False, False, True]
    assert found[3] == 0


def step_rows(slots: list[int], widths: list[int], groups: list[list[int]], prefix_of: list[int]) -> StepRows:
    """Rows in groups, each with the number of its prefix, or -1."""
    order = [row for group in groups for row in group]
    begins = np.cumsum([0, *map(len, groups)])
    integers = (slots, [width - 1 for width in widths], widths, order, begins.tolist(), prefix_of)
    return StepRows(*(torch.tensor(numbers) for numbers in integers))


def addresses(prefixes: list[tuple[torch.Tensor, torch.Tensor]]) -> Prefixes:
    found = [(keys.data_ptr(), values.data_ptr(), keys.shape[1]) for keys, values in prefixes]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("rotary", [True, False])
def test_heads_are_normed_rotated_and_stored(kernels: DecodeKernels, norms: bool, rotary: bool) -> None:
    kind, rows, columns = kernels.dtype, 3, 7
    query, key, value = (
        states(rows, heads, SIZE, seed=heads).to(kind) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    weights = states(2, SIZE, seed=9).to(kind)
    cos, sin = (
        f(states(rows, 1, SIZE // 2, seed=3)).repeat(1, 1, 2).to(kind) for f in (torch.cos, torch.sin)
    )

    def expected(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if norms:
            x = F.rms_norm(x, (SIZE,), weight, 1e-6)
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin if rotary else x

    wanted = expected(query, weights[0]), expected(key, weights[1])
    table = tuple(torch.full((5, KV_HEADS, columns, SIZE), 7.0, dtype=kind) for _ in "kv")
    at = step_rows([4, 0, 2], [1, 7, 3], [[0], [1], [2]], [-1, -1, -1])
    kernels.rotate_and_store(
        HeadStates(query, key, value),
        HeadNorms(weights[0], weights[1], 1e-6) if norms else None,
        (cos, sin) if rotary else None,
        (table[0], table[1]),
        at,
    )
    check(query, wanted[0])
    for stored, new in ((table[0], wanted[1]), (table[1], value)):
        check(stored[at.slots, :, at.columns], new)
        stored[at.slots, :, at.columns] = 7.0
        assert torch.equal(stored, torch.full_like(stored, 7.0))  # nothing else was written


@given(
    widths=st.lists(st.integers(1, 100), min_size=4, max_size=4),
    lengths=st.lists(st.integers(1, 100), min_size=2, max_size=2),
    heads=st.sampled_from([(2, 2), (4, 2), (6, 2), (7, 1), (5, 1)]),
    size=st.sampled_from([32, 64, 96, 128]),
    scale=st.sampled_from([0.1, 1.0, 20.0]),
)
@settings(max_examples=40, deadline=None)
def test_attention_of_any_sizes(
    widths: list[int], lengths: list[int], heads: tuple[int, int], size: int, scale: float
) -> None:
    """Rows 0 and 2 share a prefix, row 3 has another, row 1 none; slots in any order of a wider table."""
    count, kv_heads = heads
    slots, prefix_of_row = [3, 0, 5, 1], [0, -1, 0, 1]
    keys, values = states(6, kv_heads, 101, size, seed=1), states(6, kv_heads, 101, size, seed=2)
    prefixes = [
        (states(kv_heads, length, size, seed=3 + i), states(kv_heads, length, size, seed=5 + i))
        for i, length in enumerate(lengths)
    ]
    query = states(4, count, size, scale=scale)
    rows = step_rows(slots, widths, [[1], [0, 2], [3]], [-1, 0, 1])
    for kind in KINDS:
        kernels = load_kernels(kind)
        q = query.to(kind)
        heads_of = HeadStates(q, q[:, :kv_heads], q[:, :kv_heads])
        typed = [(k.to(kind), v.to(kind)) for k, v in prefixes]
        table = keys.to(kind), values.to(kind)
        found = kernels.attend(heads_of, table, rows, addresses(typed))
        for row, (slot, width, prefix) in enumerate(zip(slots, widths, prefix_of_row, strict=True)):
            k, v = (part[slot, :, :width].float() for part in table)
            if prefix >= 0:
                k, v = (torch.cat([a.float(), b], 1) for a, b in zip(typed[prefix], (k, v), strict=True))
            whole = F.scaled_dot_product_attention(q[row].float()[:, None], k, v, enable_gqa=True)[:, 0]
            # A score of 100 has an error of 1e-5 in float32.
            check(found[row], whole.to(kind), more=max(1.0, scale))


@pytest.mark.parametrize("rows", [1, 8])
def test_a_row_is_the_same_in_any_company(kernels: DecodeKernels, rows: int) -> None:
    """Up to rounding: alone, beside other rows and in one group with them, and with more threads."""
    kind = kernels.dtype
    table = states(8, KV_HEADS, 90, SIZE, seed=1).to(kind), states(8, KV_HEADS, 90, SIZE, seed=2).to(kind)
    prefix = [(states(KV_HEADS, 70, SIZE, seed=3).to(kind), states(KV_HEADS, 70, SIZE, seed=4).to(kind))]
    query = states(8, HEADS, SIZE, seed=5).to(kind)

    def attended(chosen: list[int], groups: list[list[int]]) -> torch.Tensor:
        some = query[chosen].clone()
        heads = HeadStates(some, some[:, :KV_HEADS], some[:, :KV_HEADS])
        at = step_rows(chosen, [11 * row + 5 for row in chosen], groups, [0] * len(groups))
        return kernels.attend(heads, table, at, addresses(prefix))

    together = attended(list(range(rows)), [list(range(rows))])
    for row in range(rows):
        check(attended([row], [[0]])[0], together[row])
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        check(attended(list(range(rows)), [[row] for row in range(rows)]), together)
    finally:
        torch.set_num_threads(threads)


def test_scores_that_are_not_finite_are_seen(kernels: DecodeKernels) -> None:
    """NaN in, NaN out: sampling refuses such logits with a message."""
    query = states(1, HEADS, SIZE).to(kernels.dtype)
    table = tuple(states(1, KV_HEADS, 40, SIZE, seed=seed).to(kernels.dtype) for seed in (1, 2))
    table[0][0, 0, 35, 3] = float("nan")
    at = step_rows([0], [40], [[0]], [-1])
    found = kernels.attend(HeadStates(query, query[:, :2], query[:, :2]), (table[0], table[1]), at, NO_PREFIX)
    assert found[0, :3].isnan().all()
    assert found[0, 3:].isfinite().all()


def test_wrong_tensors_are_refused() -> None:
    """They would be read as numbers of another size, or in another order."""
    kernels = load_kernels(torch.float32)
    x, weight = torch.ones(4, 32), torch.ones(32)
    with pytest.raises(TypeError, match=r"a decode kernel of torch\.float32 was given torch\.bfloat16"):
        kernels.add_norm(x, x.bfloat16(), weight, 1e-5)
    with pytest.raises(TypeError, match=r"was given torch\.float32, \(1, 4\)"):
        kernels.add_norm(torch.ones(32, 4).t(), None, weight, 1e-5)
