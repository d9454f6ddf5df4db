"""The training forward pass: logits where a batch trains, and nowhere else.

A model that ``policy.packed`` knows runs over the tree of the batch's rows, so that a prompt with several
sampled answers, or a history that prompts share, is computed and differentiated once. Any other model runs
over the padded rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.policy import packed
from repro_rl.policy.tree import TokenTree, build_tree

if TYPE_CHECKING:
    from repro_rl.train.batch import Batch


@dataclass(slots=True)
class Targets:
    """The T cells of a batch that train, row by row. Everything is [T]."""

    row: torch.Tensor
    column: torch.Tensor  # of the target; the logits are those of the token before it
    token: torch.Tensor
    weight: torch.Tensor
    positive: torch.Tensor
    negative: torch.Tensor
    logprob: torch.Tensor
    scale: torch.Tensor


@dataclass(slots=True)
class Forest:
    """A batch as a token tree: the nodes whose logits are needed, and which of them each target needs."""

    tree: TokenTree
    wanted: NDArray[np.int64]  # [U]
    place: torch.Tensor  # [T] index into ``wanted``


def targets(batch: Batch) -> Targets:
    """The cells with a positive weight."""
    row, column = (batch.weight > 0).nonzero(as_tuple=True)
    return Targets(
        row=row,
        column=column,
        token=batch.target[row, column],
        weight=batch.weight[row, column],
        positive=batch.positive[row, column],
        negative=batch.negative[row, column],
        logprob=batch.logprob[row, column],
        scale=batch.scale[row, column],
    )


def forest(batch: Batch, cells: Targets) -> Forest:
    """The tree of the rows up to their last trained token, which itself is only predicted."""
    ids = batch.ids.numpy()
    row, column = cells.row.numpy(), cells.column.numpy()
    length = np.ones(len(ids), dtype=np.int64)
    np.maximum.at(length, row, column + 1)
    tree = build_tree([ids[i, :size] for i, size in enumerate(length)])
    wanted, place = np.unique(tree.path[row, column], return_inverse=True)
    return Forest(tree, wanted, torch.from_numpy(place))


def trained_logits(
    model: Any, batch: Batch, temperature: float, use_packed: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits [U, V] at ``temperature``, and which of them each target [T] takes; None: U = T, in order."""
    if batch.targets is None:
        batch.targets = targets(batch)
    cells = batch.targets
    place: torch.Tensor | None = None
    if use_packed and len(cells.row) and packed.packable(model):
        if batch.forest is None:
            batch.forest = forest(batch, cells)
        place = batch.forest.place
        logits = packed.forward(model, batch.forest.tree, batch.forest.wanted)
    else:
        columns = batch.columns
        logits = model(input_ids=batch.ids, use_cache=False, logits_to_keep=columns).logits
        logits = logits[cells.row, torch.searchsorted(columns, cells.column)]
    logits = logits.float()
    return (logits / temperature if temperature != 1 else logits), place
