"""The forward pass of training: logits where a batch trains, and nowhere else.

The packed engine (``policy.packed``) runs over the tree of the batch's rows, so that a prompt with several
sampled answers, or a history that prompts share, is computed and differentiated once. Any other model runs
over padded rows. The type of ``Batch.inputs`` decides.
"""

from __future__ import annotations

from typing import Any

import torch

from repro_rl.policy import packed
from repro_rl.policy.decoders import logits_at
from repro_rl.train.batch import Batch, TreeInputs


def target_logits(model: Any, batch: Batch, temperature: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits [U, V] divided by ``temperature``, and the index [T] of each target in them; None: U = T."""
    inputs = batch.inputs
    index: torch.Tensor | None = None
    if isinstance(inputs, TreeInputs):
        index = inputs.index
        logits = packed.forward(model, inputs.tree, inputs.nodes)
    else:
        logits = logits_at(model, inputs.ids, inputs.columns)[inputs.row, inputs.column]
    logits = logits.float()
    return (logits / temperature if temperature != 1 else logits), index


def target_logprobs(logp: torch.Tensor, batch: Batch, index: torch.Tensor | None) -> torch.Tensor:
    """Log-probs [T] of the target tokens under log-distributions [U, V]; ``index`` as ``target_logits``."""
    token = batch.targets.token
    if index is None:
        return logp.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    return logp.flatten().index_select(0, index * logp.shape[-1] + token)
