"""Linear layers with a low-rank adapter, computed in the precision of the layer that they stand on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners import lora

from repro_rl.policy.model.linear import apply_linear


class AdaptedLinear(lora.Linear):
    """peft's ``Linear`` with a shorter forward pass: y = W x + b + scaling * B (A x), in the dtype of W x.

    peft converts x to the dtype of the adapter's weights, which are float32 to be trained, and the sum back.
    Beside weights in bfloat16 that takes longer than the layer itself. Here the two small matrices are
    converted instead, as under autocast, and the sum is part of the second product. Their gradients arrive
    in float32. Where anything else is asked of the layer, peft's own pass runs. Examples are several
    adapters, a merged one, dropout while it is on, and a variant such as DoRA.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's values [..., out] for ``x`` [..., in]."""
        name = self._plain_adapter() if not (args or kwargs) else None
        if name is None:
            out: torch.Tensor = super().forward(x, *args, **kwargs)
            return out
        result = apply_linear(self.base_layer, x)
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        inner = F.linear(x.to(result.dtype), down.to(result.dtype))
        added = torch.addmm(
            result.reshape(-1, result.shape[-1]),
            inner.reshape(-1, inner.shape[-1]),
            up.to(result.dtype).t(),
            alpha=self.scaling[name],
        )
        return added.view(result.shape)

    def _plain_adapter(self) -> str | None:
        """The adapter, where there is just one to add, with nothing but its two matrices."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.lora_B[name].bias is not None:
            return None
        drops = self.training and not isinstance(self.lora_dropout[name], torch.nn.Identity)
        return None if drops else name


def shorten(model: torch.nn.Module) -> None:
    """Give every plain adapted linear layer of ``model`` the shorter forward pass, in place."""
    for module in model.modules():
        if type(module) is lora.Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = AdaptedLinear
