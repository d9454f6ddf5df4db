"""A decode step of one token a row over compiled kernels: four calls a layer, or one call for few rows.

The same arithmetic as ``ragged_pass.run_pass``, in fewer calls, and keys are read where they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch

from repro_rl.policy.decoding.kernels.build import BuildError
from repro_rl.policy.decoding.kernels.library import (
    FEW_ROWS,
    FEWEST_OUTPUTS,
    HEAD_SIZE,
    INPUTS,
    DecodeKernels,
    HeadNorms,
    HeadStates,
    Network,
    Prefixes,
    StepRows,
    load_kernels,
)
from repro_rl.policy.decoding.wide.prefix_store import Prefix
from repro_rl.policy.decoding.wide.ragged_pass import RaggedPass
from repro_rl.policy.forward import packed
from repro_rl.policy.model.linear import apply_linear

KernelSwitch = Literal["auto", "off"]  # see policy.kernels
ROWS_OF_A_GROUP = 8  # so that their running softmax stays in the first cache


@dataclass(slots=True, frozen=True)
class FoundKernels:
    """The kernels for a model, or why there are none, as a clause."""

    kernels: DecodeKernels | None
    reason: str = ""


def find_kernels(switch: KernelSwitch, model: Any) -> FoundKernels:
    """The kernels for decode steps of a packable ``model``, compiled where this machine has not yet."""
    inner = packed.without_wrappers(model).model
    sizes = inner.layers[0].self_attn.head_dim, inner.config.hidden_size, inner.config.intermediate_size
    if switch == "off":
        return FoundKernels(None, "policy.kernels is off")
    if sizes[0] % HEAD_SIZE or sizes[1] % INPUTS or sizes[2] % INPUTS:
        return FoundKernels(None, "they do not serve layers of these sizes")
    try:
        return FoundKernels(load_kernels(inner.norm.weight.dtype))
    except BuildError as error:
        return FoundKernels(None, str(error))


class CompiledPass:
    """Passes of one token a row over a model that ``find_kernels`` found kernels for."""

    def __init__(self, model: Any, kernels: DecodeKernels):
        self.model, self.kernels = packed.without_wrappers(model), kernels
        self._linears = [_linears(layer) for layer in self.model.model.layers]
        # Whether one call may multiply by all weights: no linear layer is an adapter's.
        self._plain = all(map(_is_plain, chain(*self._linears, [self.model.lm_head])))

    def run(self, step: RaggedPass) -> torch.Tensor:
        """Run a pass; logits [R, V]."""
        x = packed.embedded(self.model.model, step.ids)
        rotary = packed.rotary_embedding(self.model, step.position[None])
        run = self._few_rows if len(x) <= FEW_ROWS and self._plain else self._many_rows
        return run(step, x, rotary)

    def _many_rows(self, step: RaggedPass, x: torch.Tensor, rotary: packed.Rotary) -> torch.Tensor:
        """Matrix products by torch's libraries, and four calls a layer between them."""
        kernels, rows = self.kernels, _rows(step)
        prefixes = [shared.prefix for shared in step.prefixes]
        added: torch.Tensor | None = None

        def normed(norm: Any) -> torch.Tensor:
            return kernels.add_norm(x, added, norm.weight, norm.variance_epsilon)

        for index, layer in enumerate(self.model.model.layers):
            attention, mlp = layer.self_attn, layer.mlp
            y = normed(layer.input_layernorm)
            query, key, value = (
                apply_linear(project, y).view(len(y), -1, attention.head_dim)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            states = HeadStates(query, key, value)
            table = step.store.table(index, key)
            norms = _head_norms(attention)
            kernels.rotate_and_store(
                states, norms, rotary if packed.rotates(attention) else None, table, rows
            )
            attended = kernels.attend(states, table, rows, _addresses(prefixes, index))
            added = apply_linear(attention.o_proj, attended.flatten(1))
            y = normed(layer.post_attention_layernorm)
            gated = kernels.gate(apply_linear(mlp.gate_proj, y), apply_linear(mlp.up_proj, y))
            added = apply_linear(mlp.down_proj, gated)
        return packed.last_logits(self.model, x if added is None else x.add_(added))

    def _few_rows(self, step: RaggedPass, x: torch.Tensor, rotary: packed.Rotary) -> torch.Tensor:
        """One call for all layers: weights are read where they lie, which for few rows is all that costs."""
        inner, head = self.model.model, self.model.lm_head
        query, key, *_, up, _ = self._linears[0]
        size = inner.layers[0].self_attn.head_dim
        heads = query.out_features // size, key.out_features // size, size
        like = x.new_empty(0, *heads[1:])
        prefixes = [shared.prefix for shared in step.prefixes]
        seen = [_addresses(prefixes, index) for index in range(len(inner.layers))]
        layers = [
            _layer_addresses(layer, linears, step.store.table(index, like), seen[index])
            for index, (layer, linears) in enumerate(zip(inner.layers, self._linears, strict=True))
        ]
        network = Network(
            np.array(layers),
            inner.norm.weight,
            _linear_addresses(head),
            heads,
            (len(layers), x.shape[1], up.out_features, head.out_features),
            inner.norm.variance_epsilon,
        )
        return self.kernels.step(x, rotary, network, step.store.table(0, like), _rows(step))


def _linears(layer: Any) -> tuple[Any, ...]:
    """Those of a layer, in the order of ``Layer`` in decode.cpp."""
    attention, mlp = layer.self_attn, layer.mlp
    return (
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    )


def _is_plain(linear: Any) -> bool:
    """Whether the kernels can multiply by its weights."""
    return (
        type(linear) is torch.nn.Linear
        and linear.in_features % INPUTS == 0
        and linear.out_features >= FEWEST_OUTPUTS
        and linear.weight.is_contiguous()
    )


def _layer_addresses(
    layer: Any, linears: Sequence[torch.nn.Linear], table: packed.KV, prefixes: Prefixes
) -> list[int]:
    """See ``Layer`` in decode.cpp. ``prefixes`` are to be kept until the step is done."""
    norms = _head_norms(layer.self_attn)
    return [
        *(address for linear in linears for address in _linear_addresses(linear)),
        *(layer.input_layernorm.weight.data_ptr(), layer.post_attention_layernorm.weight.data_ptr()),
        *((norms.query.data_ptr(), norms.key.data_ptr()) if norms else (0, 0)),
        *(
            table[0].data_ptr(),
            table[1].data_ptr(),
            prefixes.ctypes.data,
            int(packed.rotates(layer.self_attn)),
        ),
    ]


def _linear_addresses(layer: torch.nn.Linear) -> tuple[int, int]:
    """Of the weight, and of the bias; 0 without one."""
    return layer.weight.data_ptr(), 0 if layer.bias is None else layer.bias.data_ptr()


def _head_norms(attention: Any) -> HeadNorms | None:
    norm = getattr(attention, "q_norm", None)
    return norm and HeadNorms(norm.weight, attention.k_norm.weight, norm.variance_epsilon)


def _rows(step: RaggedPass) -> StepRows:
    """The rows of a pass of one token a row, grouped by prefix."""
    prefix_of_row = np.full(step.size, -1)
    for index, shared in enumerate(step.prefixes):
        prefix_of_row[shared.rows.numpy()] = index
    order = np.argsort(prefix_of_row, kind="stable")
    begins: list[int] = []
    of_group: list[int] = []
    for at, row in enumerate(order.tolist()):
        prefix = int(prefix_of_row[row])
        full = not begins or at - begins[-1] == ROWS_OF_A_GROUP
        if full or prefix == -1 or prefix != of_group[-1]:
            begins.append(at)
            of_group.append(prefix)
    return StepRows(
        step.slots,
        step.columns,
        step.columns + 1,
        torch.from_numpy(order),
        torch.tensor([*begins, step.size]),
        torch.tensor(of_group),
    )


def _addresses(prefixes: Sequence[Prefix], layer: int) -> Prefixes:
    pairs = (prefix.layers[layer] for prefix in prefixes)
    found = [
        (keys.data_ptr(), values.data_ptr(), prefix.length)
        for prefix, (keys, values) in zip(prefixes, pairs, strict=True)
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 3)
