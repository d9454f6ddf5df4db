"""Linear weights in bfloat16 for decoding with a model that is trained in float32 under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class CastLinears:
    """Copies in bfloat16 of the float32 weights of a model's linear layers.

    Autocast would make them again at every decode step: 8 bytes moved a weight instead of 2. With the copies
    in place a forward pass under autocast computes the same, bit for bit. All else, the embedding and the
    norms among it, stays float32. They keep their addresses when the weights change (see ``refresh``).
    """

    def __init__(self, model: Any):
        self._copies: list[tuple[nn.Linear, dict[str, nn.Parameter]]] = []
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.weight.dtype == torch.float32:
                parts = dict(module.named_parameters(recurse=False))
                self._copies.append((module, {name: _cast(parameter) for name, parameter in parts.items()}))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the present weights."""
        for module, copies in self._copies:
            for name, copy in copies.items():
                copy.copy_(module.get_parameter(name))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the layers compute with the copies. A weight shared with the embedding stays there."""
        originals = [dict(module._parameters) for module, _ in self._copies]
        for module, copies in self._copies:
            module._parameters.update(copies)
        try:
            yield
        finally:
            for (module, _), original in zip(self._copies, originals, strict=True):
                module._parameters.update(original)

    def bytes(self) -> int:
        """Memory of the copies."""
        return sum(2 * copy.numel() for _, copies in self._copies for copy in copies.values())


def _cast(parameter: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
