"""Decoders: shared prefixes, rows that leave, and the prefix cache of one set of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from repro_rl.policy import SamplingSettings
from repro_rl.policy.decoding.prompt_decoders import common_prefix
from support.models import forward_logprobs, keys_of, load_cpu
from support.prompts import LONG, PREFIX, load_sharp
from support.small import WORDS


def test_max_batch_tokens_bounds_the_cells_of_a_forward(tiny_folder):
    policy = load_sharp(tiny_folder, max_batch_tokens=64, packed=False)
    cells = []
    policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: cells.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prompts = [f"a x{i} b c" for i in range(30)]
    policy.generate(prompts, keys_of(30), SamplingSettings(4))
    assert max(cells) <= 64
    assert len(cells) > 3


def test_finished_rows_leave(tiny_folder):
    """<eos> made likely: it ends a row at once, the length limit cuts the others."""
    policy = load_sharp(tiny_folder, packed=False)
    sizes = []
    policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with torch.no_grad():  # a flat model in which every token has the same probability
        policy.model.model.embed_tokens.weight.zero_()
    share = 1 / (len(WORDS) + 3)
    out = policy.generate([f"a x{i % 7}" for i in range(210)], keys_of(210), SamplingSettings(5))
    assert [c.entropy for c in out] == pytest.approx([-np.log(share)] * 210, abs=1e-4)
    assert sizes[0] == (7, 2)  # equal prompts are one row
    alive = [sum(len(c.token_ids) > i for c in out) for i in range(1, 5)]
    # rows that share a prompt and drew the same token stay one row, so at most `alive` rows
    assert all(rows <= living and width == 1 for (rows, width), living in zip(sizes[1:], alive, strict=True))
    for completion in out:
        assert completion.finished == (completion.token_ids[-1] == 1)
        assert 1 not in completion.token_ids[:-1]
        assert len(completion.token_ids) == 5 or completion.finished
    assert 0 < sum(c.finished for c in out) < 210
    # biased to <eos>: everybody leaves after the first token and no further forward is run
    sizes.clear()
    weight = policy.model.model.embed_tokens.weight
    with torch.no_grad():
        ids = policy.codec.encode("a")
        weight[ids[0]] = torch.linspace(-1, 1, weight.shape[1])
        probe = policy.model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        weight[1] = 100 * probe
        sizes.clear()
    done = policy.generate(["a"] * 9, keys_of(9), SamplingSettings(5))
    assert [c.token_ids for c in done] == [(1,)] * 9
    assert [c.text for c in done] == [""] * 9
    assert sizes == [(1, 1)]


def test_new_weights_make_the_prefix_cache_stale(tiny_folder):
    policy = load_sharp(tiny_folder, packed=False)
    settings = SamplingSettings(5, temperature=0)
    before = policy.generate(LONG, keys_of(len(LONG)), settings)
    assert policy.prefix.cache is not None
    assert policy.prefix.ids[:20] == policy.codec.encode(PREFIX)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.sin(torch.arange(parameter.numel()).view_as(parameter).float()))
    policy.weights_changed()
    after = policy.generate(LONG, keys_of(len(LONG)), settings)
    for completion in after:
        logp = forward_logprobs(policy, (*completion.prompt_ids, *completion.token_ids))
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        assert completion.logprobs == pytest.approx(
            rows[np.arange(len(rows)), list(completion.token_ids)], abs=1e-5
        )
    assert any(abs(a.logprobs[0] - b.logprobs[0]) > 1e-3 for a, b in zip(before, after, strict=True))


def test_the_instruction_prefix_is_computed_once_for_all_steps(tiny_folder):
    """Prompts of one step share the step number too; the instructions' cache must survive it."""
    policy = load_sharp(tiny_folder, packed=False)
    settings = SamplingSettings(3, temperature=0)
    policy.generate(LONG, keys_of(len(LONG)), settings)
    assert policy.prefix.cache is not None
    cache = policy.prefix.cache
    later = [f"{PREFIX} x1 x2 {tail}" for tail in ("left", "right up")]
    done = policy.generate(later, keys_of(2), settings)
    assert policy.prefix.cache is cache
    for completion in done:
        logp = forward_logprobs(policy, (*completion.prompt_ids, *completion.token_ids))
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        assert completion.logprobs == pytest.approx(
            rows[np.arange(len(rows)), list(completion.token_ids)], abs=1e-5
        )


def test_long_answers_that_end_at_different_times(tiny_folder):
    """Rows leave one by one, stay idle for a while, and are removed: the texts are the other decoder's."""
    policies = [load_cpu(tiny_folder, packed=packed) for packed in (True, False)]
    prompts = [" ".join("abcdefgh"[: 1 + i % 8]) for i in range(60)]
    keys = keys_of(60, "long")
    ours, theirs = (p.generate(prompts, keys, SamplingSettings(40, temperature=1.5)) for p in policies)
    lengths = {len(c.token_ids) for c in ours}
    assert len(lengths) > 10
    for one, other in zip(ours, theirs, strict=True):
        assert one.token_ids == other.token_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.entropy == pytest.approx(other.entropy, abs=1e-5)


def test_common_prefix_by_hand():
    assert common_prefix([(1, 2, 3)]) == 2  # a token of its own must remain
    assert common_prefix([(1, 2, 3), (1, 2, 4, 5)]) == 2
    assert common_prefix([(1, 2), (1, 2, 4, 5)]) == 1
    assert common_prefix([(1,), (1, 2)]) == 0
    assert common_prefix([(3, 1), (2, 1), (3, 1)]) == 0


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=6))
def test_common_prefix_is_the_longest(prompts):
    shared = common_prefix(prompts)
    assert 0 <= shared < min(map(len, prompts))
    assert len({p[:shared] for p in prompts}) == 1
    longer = shared + 1
    assert longer == min(map(len, prompts)) or len({p[:longer] for p in prompts}) > 1
