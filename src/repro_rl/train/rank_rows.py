"""Rows of a mini-batch over several ranks: merged, dealt out again by length, and evened out.

With one rank every function here returns what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from repro_rl.dist.ranks import Ranks
from repro_rl.train.batch import Row, RowKey, row_key

# Values that are not read before the first trained position.
TAILS = ("kind", "positive", "negative", "n_positive", "n_negative", "logprob", "teacher")


def merge_over_ranks(ranks: Ranks, buckets: list[list[Row]]) -> list[list[Row]]:
    """The distinct rows of every mini-batch over all ranks, the same list on each of them."""
    if ranks.alone:
        return buckets
    parts = ranks.gather([[pack(row) for row in rows] for rows in buckets])
    return [
        merge_rows(unpack(packed) for part in parts for packed in part[index])
        for index in range(len(buckets))
    ]


def share_rows(ranks: Ranks, rows: list[Row]) -> list[Row]:
    """This rank's part of the rows: alike in number and in lengths on all ranks."""
    if ranks.alone:
        return rows
    return ranks.own_share(sorted(rows, key=lambda row: len(row.ids)))


def equal_counts(ranks: Ranks, micro_batches: list[list[Row]]) -> list[list[Row]]:
    """With sharded weights, as many micro-batches as any rank has: the added ones train nothing."""
    if ranks.reshard is None:
        return micro_batches
    zeros, none = np.zeros(2, np.float32), np.zeros(2, np.int32)
    empty = Row(np.zeros(2, np.int64), np.zeros(2, np.int8), zeros, zeros, none, none, zeros, 1)
    missing = max(ranks.gather(len(micro_batches))) - len(micro_batches)
    return micro_batches + [[empty]] * missing


def pack(row: Row) -> tuple[int, Row]:
    """A row in a fraction of the bytes: 32-bit ids, and its values from the first trained position on."""
    first = int(row.trained.argmax()) if row.trained.any() else len(row.kind)
    tails: dict[str, Any] = {
        name: getattr(row, name)[first:] for name in TAILS if getattr(row, name) is not None
    }
    return first, replace(row, ids=row.ids.astype(np.int32), **tails)


def unpack(packed: tuple[int, Row]) -> Row:
    """The row that ``pack`` was given."""
    first, row = packed
    whole: dict[str, Any] = {}
    for name in TAILS:
        tail = getattr(row, name)
        if tail is None:
            continue
        whole[name] = np.concatenate([np.zeros(first, tail.dtype), tail])
    return replace(row, ids=row.ids.astype(np.int64), **whole)


def merge_rows(rows: Iterable[Row]) -> list[Row]:
    """As ``batch.merge``, for rows that stand for several copies already. Changes the rows it keeps."""
    merged: dict[RowKey, Row] = {}
    for row in rows:
        first = merged.setdefault(row_key(row), row)
        if first is row:
            continue
        count = first.count + row.count
        first.positive += row.positive
        first.negative += row.negative
        first.n_positive += row.n_positive
        first.n_negative += row.n_negative
        first.logprob = (first.logprob * first.count + row.logprob * row.count) / np.float32(count)
        first.count = count
    return list(merged.values())
