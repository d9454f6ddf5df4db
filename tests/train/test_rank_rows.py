"""Rows over several ranks: merged like those of one rank, and shared evenly."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from repro_rl.dist.failures import RankMonitor
from repro_rl.dist.ranks import ALONE, Ranks
from repro_rl.train.batch import Row, merge
from repro_rl.train.rank_rows import merge_rows, pack, share_rows, unpack
from repro_rl.types import TokenKind
from support.toy import sample_of

samples = st.lists(
    st.tuples(
        st.lists(st.integers(1, 2), min_size=2, max_size=4),
        st.floats(-2, 2, width=32),
        st.sampled_from([TokenKind.ACT, TokenKind.REFLECT]),
    ),
    max_size=12,
)


def as_dict(rows: list[Row]) -> dict[Any, Row]:
    return {(row.ids.tobytes(), row.kind.tobytes()): row for row in rows}


@settings(deadline=None)
@given(samples, samples)
def test_rows_merged_over_processes_are_those_of_one(one, two):
    parts = [[sample_of(ids, 1, a, -abs(a), kind) for ids, a, kind in part] for part in (one, two)]
    whole = as_dict(merge([*parts[0], *parts[1]]))
    again = as_dict(merge_rows(unpack(pack(row)) for part in parts for row in merge(part)))
    assert again.keys() == whole.keys()
    for key, row in whole.items():
        assert again[key].count == row.count
        assert again[key].ids.dtype == row.ids.dtype
        for name in ("positive", "negative", "n_positive", "n_negative", "logprob"):
            assert np.allclose(getattr(again[key], name), getattr(row, name), atol=1e-5), name


def test_packed_rows_keep_a_conversation_with_untrained_parts_between():
    """Trained on at positions 2 and 4 alone."""
    zeros = np.zeros(5, np.float32)
    kind = np.array([0, 0, TokenKind.ACT, 0, TokenKind.REFLECT], np.int8)
    ones = np.ones(5, np.int32)
    row = Row(np.arange(5), kind, zeros + 1, zeros - 1, ones, 2 * ones, zeros + 3, 3)
    for values in (row.positive, row.negative, row.n_positive, row.n_negative, row.logprob):
        values[:2] = 0
    back = unpack(pack(row))
    for name in ("ids", "kind", "positive", "negative", "n_positive", "n_negative", "logprob"):
        assert np.array_equal(getattr(back, name), getattr(row, name)), name
        assert getattr(back, name).dtype == getattr(row, name).dtype
    assert back.count == 3


def test_shared_rows_are_all_rows_and_alike_in_length():
    rows = merge([sample_of([1] * length, 1, 0.0, 0.0) for length in (9, 2, 3, 8, 4, 7, 5, 6)])
    shares = [share_rows(Ranks(rank, 3, RankMonitor(rank, 1.0)), rows) for rank in range(3)]
    assert sorted(len(row.ids) for share in shares for row in share) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert [[len(row.ids) for row in share] for share in shares] == [[2, 5, 8], [3, 6, 9], [4, 7]]
    assert share_rows(ALONE, rows) is rows
