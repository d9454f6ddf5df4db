"""Merging equal samples, and padding what remains.

In grouped rollouts most sequences occur many times. Under PPO's clipped objective equal sequences differ
only in their advantages, and the objective of one token is piecewise linear in A: min(rA, clip(r)A) is
A*min(r, 1+e) for A >= 0 and A*max(r, 1-e) for A < 0. So the sums of the positive and of the negative
advantages are all that the update needs; training on merged rows gives the same gradient as training on
every copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.train.forward import Forest, Targets
from repro_rl.types import Sample

RowKey = tuple[bytes, bytes, bytes, str]
SPREAD = 4  # cells of attention for each node of a tree


@dataclass(slots=True)
class Row:
    """All equal samples of a mini-batch as one row."""

    ids: NDArray[np.int64]  # [L]
    trained: NDArray[np.bool_]  # [L]
    positive: NDArray[np.float32]  # [L] sum of the advantages >= 0
    negative: NDArray[np.float32]  # [L] sum of the advantages < 0
    logprob: NDArray[np.float32]  # [L] sampled log-prob (mean over the copies; they differ in the last bits)
    count: int
    kind: str
    reflected: NDArray[np.bool_] | None = None  # [L], see Sample


@dataclass(slots=True)
class Batch:
    """Right-padded rows. [B, L] unless said otherwise; targets are the ids shifted left by one."""

    ids: torch.Tensor
    target: torch.Tensor  # [B, L-1]
    weight: torch.Tensor  # [B, L-1] copies of the row where the target is trained on, else 0
    positive: torch.Tensor  # [B, L-1]
    negative: torch.Tensor  # [B, L-1]
    logprob: torch.Tensor  # [B, L-1]
    scale: torch.Tensor  # [B, L-1] what a token of this kind counts
    reference: torch.Tensor | None = None  # see loss.reference_values
    targets: Targets | None = None  # these two are made by the first forward pass
    forest: Forest | None = None

    @property
    def columns(self) -> torch.Tensor:
        """[K] target columns that any row trains on; other logits are not needed."""
        return (self.weight > 0).any(dim=0).nonzero().squeeze(-1)


def row_key(row: Row | Sample) -> RowKey:
    """Rows and samples with equal keys can be one row."""
    reflected = b"" if row.reflected is None else row.reflected.tobytes()
    return row.ids.tobytes(), row.trained.tobytes(), reflected, row.kind


def merge(samples: Sequence[Sample]) -> list[Row]:
    """Merge equal samples (same ids, trained positions and kind). Order of first appearance is kept."""
    rows: dict[RowKey, Row] = {}
    for sample in samples:
        key = row_key(sample)
        row = rows.get(key)
        if row is None:
            rows[key] = Row(
                ids=sample.ids,
                trained=sample.trained,
                positive=np.maximum(sample.advantage, 0),
                negative=np.minimum(sample.advantage, 0),
                logprob=sample.logprob.copy(),
                count=1,
                kind=sample.kind,
                reflected=sample.reflected,
            )
        else:
            row.positive += np.maximum(sample.advantage, 0)
            row.negative += np.minimum(sample.advantage, 0)
            row.logprob += sample.logprob
            row.count += 1
    for row in rows.values():
        row.logprob /= row.count
    return list(rows.values())


def trained_tokens(rows: Sequence[Row], kind: str) -> int:
    """Tokens of a kind that are trained on, in all copies; packed reflections' are among "reflect"."""
    total = 0
    for row in rows:
        inside = 0 if row.reflected is None else int((row.trained & row.reflected).sum())
        total += row.count * inside if kind == "reflect" else 0
        total += row.count * (int(row.trained.sum()) - inside) if row.kind == kind else 0
    return total


def split_rows(rows: Sequence[Row], max_cells: int) -> list[list[Row]]:
    """Sort by length and cut so that no padded batch exceeds ``max_cells`` cells (a single row may)."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    batches: list[list[Row]] = []
    current: list[Row] = []
    for row in ordered:
        if current and (len(current) + 1) * len(row.ids) > max_cells:
            batches.append(current)
            current = []
        current.append(row)
    if current:
        batches.append(current)
    return batches


def split_tree(rows: Sequence[Row], max_nodes: int) -> list[list[Row]]:
    """Cut so that no batch, as a token tree, has more than ``max_nodes`` nodes (a single row may).

    Rows that begin alike stay together. Attention pads them, to at most ``SPREAD`` times as many cells.
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
        if current and (nodes + fresh > max_nodes or (len(current) + 1) * wide > SPREAD * max_nodes):
            batches.append(current)
            current, nodes, wide, fresh = [], 0, len(ids), len(ids)
        current.append(row)
        nodes, width = nodes + fresh, wide
    if current:
        batches.append(current)
    return batches


def collate(rows: Sequence[Row], scales: dict[str, float], pad_id: int, device: torch.device) -> Batch:
    """Pad rows on the right. A causal model never looks right, so no attention mask is needed."""
    size, width = len(rows), max(len(row.ids) for row in rows)
    ids = np.full((size, width), pad_id, dtype=np.int64)
    weight, positive, negative, logprob, scale = (np.zeros((size, width), dtype=np.float32) for _ in range(5))
    for i, row in enumerate(rows):
        length = len(row.ids)
        ids[i, :length] = row.ids
        weight[i, :length] = row.trained * row.count
        positive[i, :length], negative[i, :length] = row.positive, row.negative
        logprob[i, :length] = row.logprob
        scale[i] = scales[row.kind]
        if row.reflected is not None:
            scale[i, :length][row.reflected] = scales["reflect"]

    def send(values: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    return Batch(
        ids=send(ids),
        target=send(ids[:, 1:]),
        weight=send(weight[:, 1:]),
        positive=send(positive[:, 1:]),
        negative=send(negative[:, 1:]),
        logprob=send(logprob[:, 1:]),
        scale=send(scale[:, 1:]),
    )
