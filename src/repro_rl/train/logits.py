"""The forward pass of training: logits where a batch trains, and nowhere else.

The packed engine (``policy.forward.packed``) runs over the tree of the batch's rows. So a prompt with several
sampled answers, or a history that prompts share, is computed and differentiated once. Any other model runs
over padded rows. The type of ``Batch.inputs`` decides. On a CPU padded rows have logits at every column where
one of them trains. With fewer, gradients would be summed in another order than in earlier versions.
"""

from __future__ import annotations

from typing import Any

import torch

from repro_rl.policy.forward import packed
from repro_rl.policy.forward.choices import EXCLUDED
from repro_rl.policy.forward.padded import logits_at, logits_of
from repro_rl.train.batch import Batch, Choices, PaddedInputs, TreeInputs


def target_logits(model: Any, batch: Batch, temperature: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits [U, V] divided by ``temperature``, and the index [T] of each target in them; None: U = T."""
    inputs = batch.inputs
    index: torch.Tensor | None = None
    if isinstance(inputs, TreeInputs):
        index = inputs.index
        logits = packed.forward(model, inputs.tree, inputs.nodes)
    else:
        logits = padded_logits(model, inputs)
    logits = logits.float()
    return (logits / temperature if temperature != 1 else logits), index


def padded_logits(model: Any, inputs: PaddedInputs) -> torch.Tensor:
    """Logits [T, V] of every target of padded rows."""
    if inputs.ids.device.type == "cuda":
        return logits_of(model, inputs.ids, inputs.columns, inputs.row, inputs.column)
    return logits_at(model, inputs.ids, inputs.columns)[inputs.row, inputs.column]


def target_logprobs(logp: torch.Tensor, batch: Batch, index: torch.Tensor | None) -> torch.Tensor:
    """Log-probs [T] of the target tokens under log-distributions [U, V]; ``index`` as ``target_logits``.

    Of a target that was drawn from a few ids, the log-prob among those.
    """
    token = batch.targets.token
    if index is None:
        chosen = logp.gather(-1, token.unsqueeze(-1)).squeeze(-1)
    else:
        chosen = logp.flatten().index_select(0, index * logp.shape[-1] + token)
    choices = batch.targets.choices
    if choices is None:
        return chosen
    among = choice_logprobs(logp, choices, index)
    return chosen.index_copy(0, choices.target, among.gather(-1, choices.token.unsqueeze(-1)).squeeze(-1))


def choice_logprobs(logp: torch.Tensor, choices: Choices, index: torch.Tensor | None) -> torch.Tensor:
    """Log-distributions [G, M] over the ids that guided targets were drawn from, of those [U, V] over all.

    Padding has a log-prob so low that its probability, and any product with it, is 0.
    """
    source = choices.target if index is None else index.index_select(0, choices.target)
    cells = source.unsqueeze(-1) * logp.shape[-1] + choices.ids
    among = logp.flatten().index_select(0, cells.flatten()).view(cells.shape)
    return torch.log_softmax(among.masked_fill(choices.excluded, EXCLUDED), dim=-1)
