"""The forward pass of any causal LM over padded rows, with logits where they are wanted."""

from __future__ import annotations

from typing import Any

import torch


def logits_at(model: Any, ids: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Logits [B, K, V] at ``columns`` [K] of right-padded rows ``ids`` [B, L], by one pass without a cache.

    A causal model never looks right, so no attention mask is needed.
    """
    logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits
    if logits.shape[1] == len(columns):
        return logits
    return logits[:, columns]  # code outside transformers may not know logits_to_keep


def logits_of(
    model: Any, ids: torch.Tensor, columns: torch.Tensor, row: torch.Tensor, column: torch.Tensor
) -> torch.Tensor:
    """Logits [T, V] of the tokens at ``columns[column]`` of ``row`` [T]; the rest as ``logits_at``.

    The output layer runs over those T states alone, where the model's code hands it states [B, K, D]. With a
    large vocabulary it is much of a pass, and rows have their tokens at different columns.
    """
    chosen: list[torch.Tensor] = []

    def choose(layer: Any, inputs: tuple[Any, ...]) -> tuple[torch.Tensor] | None:
        if len(inputs) != 1 or inputs[0].ndim != 3 or inputs[0].shape[:2] != (len(ids), len(columns)):
            return None
        chosen.append(inputs[0][row, column][None])
        return (chosen[-1],)

    find = getattr(model, "get_output_embeddings", None)
    layer = find() if find is not None else None
    hook = layer.register_forward_pre_hook(choose) if layer is not None else None
    try:
        logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=columns).logits
    finally:
        if hook is not None:
            hook.remove()
    if chosen:
        return logits[0]
    return (logits if logits.shape[1] == len(columns) else logits[:, columns])[row, column]
