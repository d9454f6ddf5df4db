"""From logits to tokens: top-p, drawing, and what is impossible is never drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from repro_rl.policy import SamplingSettings
from repro_rl.policy.base import AnswerTokens
from repro_rl.policy.decoding import sampling
from repro_rl.policy.decoding.sampling import (
    BatchSampling,
    DecodeBatch,
    draw,
    sample_rows,
    sample_tokens,
    top_p_filter,
)
from support.models import keys_of


def ends(*stop: int) -> AnswerTokens:
    """Every id has a token, and these end an answer."""
    return AnswerTokens(frozenset(stop), limit=10, size=10)


def test_top_p_by_hand():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]])
    assert torch.equal(top_p_filter(probs, 0.7), torch.tensor([[0, 0.5, 0, 0.25], [0.97, 0, 0, 0]]))
    assert torch.equal(top_p_filter(probs, 0.4) > 0, torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]]).bool())
    assert top_p_filter(probs, 0.8)[0].tolist() == pytest.approx([0, 0.5, 0.15, 0.25])


@given(st.lists(st.integers(1, 100), min_size=1, max_size=10), st.floats(0.05, 0.99))
def test_top_p_keeps_the_smallest_sufficient_set(weights, top_p):
    probs = torch.tensor([weights], dtype=torch.float64)
    probs /= probs.sum()
    kept = top_p_filter(probs, top_p)[0]
    inside = kept[kept > 0]
    assert float(inside.sum()) >= top_p - 1e-9
    assert float(inside.sum() - inside.min()) < top_p + 1e-9  # without its least token it is too small
    left = probs[0][kept == 0]
    assert len(left) == 0 or float(left.max()) <= float(inside.min())


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_top_p_of_a_large_vocabulary_is_that_of_a_full_sort(top_p, monkeypatch):
    """A peaked row alone, and beside a flat one, of which the likely tokens are not enough."""
    logits = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    probs = torch.softmax(logits * torch.tensor([[8.0], [4.0], [0.1]]), dim=-1)
    for rows in (probs[:1], probs[:2], probs):
        full = top_p_filter(rows, top_p)
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "TOP_P_CANDIDATES", 20)
            assert torch.equal(top_p_filter(rows, top_p), full)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_draw_in_pieces(at_once, monkeypatch):
    """However few branches at a time: the first index where the running sum exceeds the share."""
    rng = np.random.default_rng(0)
    weights = torch.tensor(rng.random((9, 50)) * (rng.random((9, 50)) < 0.3), dtype=torch.float32)
    branch, uniform = rng.integers(9, size=70), rng.random(70)
    monkeypatch.setattr(sampling, "DRAW_BYTES", at_once * 8 * 50)
    sums = weights.double().numpy().cumsum(-1)
    expected = [
        np.searchsorted(sums[n], u * sums[n, -1], side="right") for n, u in zip(branch, uniform, strict=True)
    ]
    assert draw(weights, branch, uniform).tolist() == expected


def test_the_least_uniform_never_draws_an_impossible_token():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0]])
    branch, uniform = np.zeros(4, dtype=np.int64), np.array([0.0, 0.4999, 0.5, 1 - 2**-53])
    chosen, logprobs, entropy = sample_tokens(logits, branch, uniform, SamplingSettings(1), ends())
    assert chosen.tolist() == [1, 1, 3, 3]
    assert logprobs == pytest.approx([-np.log(2)] * 4)
    assert entropy == pytest.approx([np.log(2)] * 4)


class Script:
    """A decoder whose next token is certain: the sum of all tokens of its branch so far, modulo 5."""

    def __init__(self, starts: list[int]):
        self.sums = np.array(starts)
        self.steps: list[DecodeBatch] = []

    def logits(self) -> torch.Tensor:
        return torch.full((len(self.sums), 5), -torch.inf).scatter(
            1, torch.from_numpy(self.sums % 5)[:, None], 0.0
        )

    def advance(self, branches: DecodeBatch) -> torch.Tensor:
        self.steps.append(branches)
        self.sums = self.sums[branches.parent] + branches.token
        return self.logits()


def test_the_loop_by_hand():
    """Branches of finished rows leave, rows keep theirs, and nothing is computed after the last token."""
    decoder = Script([3, 1, 0])
    branch = np.array([0, 1, 2, 1])
    rows = sample_rows(
        decoder, decoder.logits(), branch, keys_of(4), BatchSampling(SamplingSettings(4), ends(0, 2))
    )
    # 3 -> 3 + 3 = 1 mod 5 -> 6 + 1 = 2; 1 -> 2; 0 ends at once
    assert [row.token_ids for row in rows] == [(3, 1, 2), (1, 2), (0,), (1, 2)]
    assert all(row.finished for row in rows)
    assert all(row.logprobs.tolist() == [0.0] * len(row.token_ids) for row in rows)
    first, second = decoder.steps
    assert (first.rows.tolist(), first.branch.tolist()) == ([0, 1, 3], [0, 1, 1])
    assert (first.parent.tolist(), first.token.tolist()) == ([0, 1], [3, 1])
    assert (second.rows.tolist(), second.branch.tolist()) == ([0], [0])
    assert (second.parent.tolist(), second.token.tolist()) == ([0], [1])
    decoder = Script([3])
    (row,) = sample_rows(
        decoder, decoder.logits(), np.zeros(1, int), keys_of(1), BatchSampling(SamplingSettings(2), ends(0))
    )
    assert (row.token_ids, row.finished, len(decoder.steps)) == ((3, 1), False, 1)


def test_rows_of_one_branch_part_where_their_tokens_differ():
    class Flat:
        def advance(self, branches: DecodeBatch) -> torch.Tensor:
            pairs = list(zip(branches.parent.tolist(), branches.token.tolist(), strict=True))
            assert pairs == sorted(set(pairs))
            return torch.zeros(len(pairs), 3)

    keys = keys_of(40)
    rows = sample_rows(
        Flat(),
        torch.zeros(1, 3),
        np.zeros(40, dtype=np.int64),
        keys,
        BatchSampling(SamplingSettings(6), ends(9)),
    )
    assert len({row.token_ids for row in rows}) > 20
    assert all(row.entropy == pytest.approx(np.log(3), abs=1e-6) for row in rows)
    alone = sample_rows(
        Flat(),
        torch.zeros(1, 3),
        np.zeros(1, dtype=np.int64),
        keys[7:8],
        BatchSampling(SamplingSettings(6), ends(9)),
    )
    assert alone[0].token_ids == rows[7].token_ids


# Ids without a token ------------------------------------------------------------------------------

PADDED = AnswerTokens(frozenset({0}), limit=4, size=6, holes=(1,))  # 1, 4 and 5 have no token


def test_ids_without_a_token_are_never_drawn():
    """They hold nearly all of the mass here, and the log-probs are still those of the full distribution."""
    logits = torch.tensor([[0.0, 9.0, 0.0, 1.0, 9.0, 8.0]])
    uniform = np.array([0.0, 0.1, 0.3, 0.6, 1 - 2**-53])
    branch = np.zeros(5, dtype=np.int64)
    full = torch.log_softmax(logits, -1)[0].numpy()
    for settings in (SamplingSettings(1), SamplingSettings(1, top_p=0.999)):
        chosen, logprobs, _ = sample_tokens(logits, branch, uniform, settings, PADDED)
        assert set(chosen.tolist()) <= {0, 2, 3}
        assert logprobs == pytest.approx(full[chosen])
    # weights 1, 1 and e of the tokens 0, 2 and 3: their shares begin at 0, .212 and .424
    assert sample_tokens(logits, branch, uniform, SamplingSettings(1), PADDED)[0].tolist() == [0, 0, 2, 3, 3]


def test_the_most_likely_token_is_one_that_exists():
    logits = torch.tensor([[0.0, 9.0, 2.0, 1.0, 9.0, 8.0]])
    greedy = SamplingSettings(1, temperature=0)
    chosen, logprobs, _ = sample_tokens(logits, np.zeros(1, np.int64), np.zeros(1), greedy, PADDED)
    assert chosen.tolist() == [2]
    assert logprobs == pytest.approx(torch.log_softmax(logits, -1)[0, 2].item())


def test_an_answer_of_a_padded_model_holds_tokens_only():
    class Padded:
        def advance(self, branches: DecodeBatch) -> torch.Tensor:
            return torch.tensor([[0.0, 5.0, 0.0, 0.0, 5.0, 5.0]]).repeat(len(branches.token), 1)

    first = Padded().advance(
        DecodeBatch(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int))
    )
    rows = sample_rows(
        Padded(), first, np.zeros(50, int), keys_of(50), BatchSampling(SamplingSettings(8), PADDED)
    )
    assert {token for row in rows for token in row.token_ids} == {0, 2, 3}
    assert all(row.finished == (row.token_ids[-1] == 0) for row in rows)
