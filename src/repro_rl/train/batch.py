"""Merging equal samples into rows, and rows into batches for one forward and backward pass.

In grouped rollouts most sequences occur many times. Under PPO's clipped objective equal sequences differ only
in their advantages. The objective of one token is piecewise linear in A: min(rA, clip(r)A) is A*min(r, 1+e)
for A >= 0 and A*max(r, 1-e) for A < 0. So the sums of the positive and of the negative advantages are all
that the update needs. Training on merged rows gives the same gradient as training on every copy (decision
D55).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.policy.forward.choices import padded_choices
from repro_rl.policy.forward.packed import use_packed
from repro_rl.policy.forward.tree import TokenTree, build_tree
from repro_rl.policy.transformers_policy import TransformersPolicy
from repro_rl.types import PART_BASE, Ids, Sample, TokenKind

RowKey = tuple[bytes, bytes, tuple[tuple[int, Ids], ...], bytes]
# Weight of a token of each kind in the loss: one number, or a function of the tokens of its kind in its row.
Scales = Mapping[TokenKind, float | Callable[[Any], Any]]
PADDING_RATIO = 4  # most cells of attention for each node of a tree


@dataclass(slots=True)
class Row:
    """All equal samples of a mini-batch as one row."""

    ids: NDArray[np.int64]  # [L]
    kind: NDArray[np.int8]  # [L], TokenKind
    positive: NDArray[np.float32]  # [L], sum of the advantages >= 0
    negative: NDArray[np.float32]  # [L], sum of the advantages < 0
    n_positive: NDArray[np.int32]  # [L], copies whose advantage is > 0
    n_negative: NDArray[np.int32]  # [L], copies whose advantage is < 0
    logprob: NDArray[np.float32]  # [L], sampled log-prob: mean of the copies, which differ in the last bits
    count: int  # of copies
    allowed: Mapping[int, Ids] = field(default_factory=dict)  # see Sample
    parts: NDArray[np.int64] | None = None  # [L], see Sample; of demonstrations, which are never merged
    teacher: NDArray[np.float32] | None = None  # [L], see Sample; copies have the same

    @property
    def trained(self) -> NDArray[np.bool_]:
        """[L], True where the token is trained on."""
        return np.not_equal(self.kind, TokenKind.CONTEXT)


@dataclass(slots=True, frozen=True)
class Choices:
    """The G targets of a batch that were drawn from a few ids, not from the whole vocabulary."""

    target: torch.Tensor  # [G], index into the targets
    ids: torch.Tensor  # [G, M], what each could be; shorter sets are padded
    excluded: torch.Tensor  # [G, M] bool, where it is padding
    token: torch.Tensor  # [G], index of the target's token among its ids


@dataclass(slots=True, frozen=True)
class Targets:
    """The T trained tokens of a batch, row by row. Everything is [T]."""

    token: torch.Tensor
    weight: torch.Tensor  # copies of the row
    positive: torch.Tensor  # see Row
    negative: torch.Tensor
    n_positive: torch.Tensor
    n_negative: torch.Tensor
    logprob: torch.Tensor
    scale: torch.Tensor  # weight of a token of this kind, see Scales
    row: torch.Tensor  # int64, equal for the targets of one kind in one row
    choices: Choices | None = None  # of guided answers
    teacher: torch.Tensor | None = None  # see Row; NaN where there is none

    def of_kind(self, kind: TokenKind) -> torch.Tensor:
        """[T] bool: the tokens of this kind."""
        return self.row % len(TokenKind) == kind


@dataclass(slots=True, frozen=True)
class PaddedInputs:
    """Right-padded rows for any causal model: it never looks right, so no attention mask is needed."""

    ids: torch.Tensor  # [B, L]
    columns: torch.Tensor  # [K], the columns whose logits any row needs
    row: torch.Tensor  # [T]
    column: torch.Tensor  # [T], index into ``columns``


@dataclass(slots=True, frozen=True)
class TreeInputs:
    """The rows as a token tree, up to their last trained token, which itself is only predicted."""

    tree: TokenTree
    nodes: NDArray[np.int64]  # [U], the nodes whose logits are needed
    index: torch.Tensor  # [T], index into ``nodes``


@dataclass(slots=True, frozen=True)
class Batch:
    """One micro-batch. It is never changed: ``dataclasses.replace`` makes another one."""

    inputs: PaddedInputs | TreeInputs  # what the model reads: one padded row each, or one token tree
    targets: Targets  # the trained tokens of all rows, [T], and what their loss needs
    reference: torch.Tensor | None = None  # see loss.reference_values
    parts: NDArray[np.int64] | None = None  # [T], of demonstrations: see Sample; numbered over all rows
    distill_scale: float = 0.0  # weight of a token in self-distillation: 1 / those of the mini-batch


def row_key(row: Row | Sample) -> RowKey:
    """Rows and samples with equal keys can be one row."""
    teacher = b"" if row.teacher is None else row.teacher.tobytes()
    return row.ids.tobytes(), row.kind.tobytes(), tuple(row.allowed.items()), teacher


def single_row(sample: Sample) -> Row:
    """A row of one sample, with arrays of its own where ``merge`` adds to them."""
    return Row(
        ids=sample.ids,
        kind=sample.kind,
        positive=np.maximum(sample.advantage, 0),
        negative=np.minimum(sample.advantage, 0),
        n_positive=(sample.advantage > 0).astype(np.int32),
        n_negative=(sample.advantage < 0).astype(np.int32),
        logprob=sample.logprob.copy(),
        count=1,
        allowed=sample.allowed,
        parts=sample.parts,
        teacher=sample.teacher,
    )


def merge(samples: Sequence[Sample]) -> list[Row]:
    """Merge equal samples (same ids and kinds). Order of first appearance is kept."""
    rows: dict[RowKey, Row] = {}
    for sample in samples:
        key = row_key(sample)
        row = rows.get(key)
        if row is None:
            rows[key] = single_row(sample)
        else:
            row.positive += np.maximum(sample.advantage, 0)
            row.negative += np.minimum(sample.advantage, 0)
            row.n_positive += sample.advantage > 0
            row.n_negative += sample.advantage < 0
            row.logprob += sample.logprob
            row.count += 1
    for row in rows.values():
        row.logprob /= row.count
    return list(rows.values())


def trained_tokens(rows: Sequence[Row], kind: TokenKind) -> int:
    """Tokens of a kind, in all copies."""
    return sum(row.count * int((row.kind == kind).sum()) for row in rows)


def taught_tokens(rows: Sequence[Row]) -> int:
    """Tokens that self-distillation has a teacher for, in all copies."""
    return sum(
        row.count * int((~np.isnan(row.teacher) & row.trained).sum())
        for row in rows
        if row.teacher is not None
    )


def split_rows(rows: Sequence[Row], max_cells: int) -> list[list[Row]]:
    """Sort by length and cut so that no padded batch exceeds ``max_cells`` cells (a single row may)."""
    batches: list[list[Row]] = []
    current: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if current and (len(current) + 1) * len(row.ids) > max_cells:
            batches.append(current)
            current = []
        current.append(row)
    if current:
        batches.append(current)
    return batches


def split_tree(rows: Sequence[Row], max_nodes: int) -> list[list[Row]]:
    """Cut so that no batch, as a token tree, has more than ``max_nodes`` nodes (a single row may).

    Rows that begin alike stay together. Attention pads them, to at most ``PADDING_RATIO`` times as many
    cells.
    """
    keyed = sorted(((row.ids.tobytes(), row) for row in rows), key=lambda pair: pair[0])
    batches: list[list[Row]] = []
    current: list[Row] = []
    nodes = width = 0
    for _, row in keyed:
        ids = row.ids
        fresh = len(ids)
        if current:
            last = current[-1].ids
            size = min(len(last), len(ids))
            differ = np.nonzero(last[:size] != ids[:size])[0]
            fresh -= int(differ[0]) if len(differ) else size
        wide = max(width, len(ids))
        if current and (nodes + fresh > max_nodes or (len(current) + 1) * wide > PADDING_RATIO * max_nodes):
            batches.append(current)
            current, nodes, wide, fresh = [], 0, len(ids), len(ids)
        current.append(row)
        nodes, width = nodes + fresh, wide
    if current:
        batches.append(current)
    return batches


@dataclass(slots=True, frozen=True)
class Collation:
    """How rows become batches: for which device, and as padded rows or as a token tree."""

    pad_id: int
    device: torch.device
    as_tree: bool = False  # for the packed engine; see policy.forward.packed

    @classmethod
    def of(cls, policy: TransformersPolicy, model: Any = None) -> Collation:
        """For passes of ``policy.model``, or of ``model`` in its place: trees where the packed engine can."""
        as_tree = use_packed(policy.packed_allowed, policy.model if model is None else model)
        return cls(policy.codec.pad_id, policy.device, as_tree)

    def split(self, rows: Sequence[Row], max_cells: int) -> list[list[Row]]:
        """Micro-batches of at most ``max_cells`` cells or nodes."""
        return (split_tree if self.as_tree else split_rows)(rows, max_cells)

    def collate(self, rows: Sequence[Row], scales: Scales) -> Batch:
        """A batch of ``rows``; a token of a kind counts ``scales[kind]`` times its row's copies."""
        size, width = len(rows), max(len(row.ids) for row in rows)
        ids = np.full((size, width), self.pad_id, dtype=np.int64)
        kind = np.zeros((size, width), dtype=np.int8)
        names = ("positive", "negative", "n_positive", "n_negative", "logprob")
        values = {name: np.zeros((size, width), dtype=np.float32) for name in names}
        for i, row in enumerate(rows):
            length = len(row.ids)
            ids[i, :length], kind[i, :length] = row.ids, row.kind
            for name, table in values.items():
                table[i, :length] = getattr(row, name)
        # The first token of a row is never predicted.
        row_index, column = np.nonzero(kind[:, 1:])
        cells = row_index, column + 1
        copies = np.array([row.count for row in rows], dtype=np.float32)
        targets = Targets(
            token=self._tensor(ids[cells]),
            weight=self._tensor(copies[row_index]),
            **{name: self._tensor(table[cells]) for name, table in values.items()},
            scale=self._tensor(token_scales(scales, kind, cells)),
            row=self._tensor(row_index.astype(np.int64) * len(TokenKind) + kind[cells]),
            choices=self._choices(rows, ids, cells),
            teacher=self._teacher(rows, cells),
        )
        parts = target_parts(rows)
        if self.as_tree and len(row_index):
            return Batch(tree_inputs(ids, row_index, column), targets, parts=parts)
        return Batch(self._padded(ids, row_index, column), targets, parts=parts)

    def _teacher(
        self, rows: Sequence[Row], cells: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> torch.Tensor | None:
        """[T], the teacher's log-probs of the targets in ``cells``, NaN where a row has none."""
        if all(row.teacher is None for row in rows):
            return None
        width = max(len(row.ids) for row in rows)
        table = np.full((len(rows), width), np.nan, dtype=np.float32)
        for i, row in enumerate(rows):
            if row.teacher is not None:
                table[i, : len(row.teacher)] = row.teacher
        return self._tensor(table[cells])

    def _choices(
        self, rows: Sequence[Row], ids: NDArray[np.int64], cells: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> Choices | None:
        """Of the targets in ``cells`` (row, column) those with a few ids to choose from."""
        if not any(row.allowed for row in rows):
            return None
        found = [
            (target, rows[row].allowed[column])
            for target, (row, column) in enumerate(zip(cells[0].tolist(), cells[1].tolist(), strict=True))
            if column in rows[row].allowed
        ]
        targets = np.array([target for target, _ in found])
        token = ids[cells][targets].tolist()
        order = [allowed.index(t) for t, (_, allowed) in zip(token, found, strict=True)]
        table, excluded = padded_choices([allowed for _, allowed in found])
        return Choices(
            target=self._tensor(targets),
            ids=table.to(self.device),
            excluded=excluded.to(self.device),
            token=self._tensor(np.array(order)),
        )

    def _padded(
        self, ids: NDArray[np.int64], row: NDArray[np.int64], column: NDArray[np.int64]
    ) -> PaddedInputs:
        columns, index = np.unique(column, return_inverse=True)
        return PaddedInputs(
            self._tensor(ids), self._tensor(columns), self._tensor(row), self._tensor(index.reshape(-1))
        )

    def _tensor(self, values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def token_scales(
    scales: Scales, kind: NDArray[np.int8], cells: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float32]:
    """[T], the weight of each target; ``kind`` [B, L], ``cells``: row and column of the targets."""
    table = np.zeros((len(kind), len(TokenKind)), dtype=np.float32)
    for name, scale in scales.items():
        table[:, name] = scale((kind[:, 1:] == name).sum(axis=1)) if callable(scale) else scale
    result: NDArray[np.float32] = table[cells[0], kind[cells]]
    return result


def target_parts(rows: Sequence[Row]) -> NDArray[np.int64] | None:
    """[T], the codes of ``Sample.parts`` at the trained tokens, with other numbers in every row."""
    if all(row.parts is None for row in rows):
        return None
    codes, first = [], 0
    for row in rows:
        parts = np.zeros(len(row.ids), np.int64) if row.parts is None else row.parts
        codes.append(np.where(parts > 0, parts + first, 0)[1:][row.trained[1:]])
        first += PART_BASE * (1 + int(parts.max()) // PART_BASE)
    return np.concatenate(codes)


def tree_inputs(ids: NDArray[np.int64], row: NDArray[np.int64], column: NDArray[np.int64]) -> TreeInputs:
    """The tree of the rows ``ids`` [B, L]; target t is predicted at ``column[t]`` of ``row[t]``."""
    length = np.ones(len(ids), dtype=np.int64)
    np.maximum.at(length, row, column + 1)
    tree = build_tree([ids[i, :size] for i, size in enumerate(length)])
    nodes, index = np.unique(tree.path[row, column], return_inverse=True)
    return TreeInputs(tree, nodes, torch.from_numpy(index))
