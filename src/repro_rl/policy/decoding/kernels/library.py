"""The kernels of ``decode.cpp``, called with tensors of the CPU."""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.errors import clause
from repro_rl.policy.decoding.kernels.build import BuildError, build_library
from repro_rl.policy.forward.packed import KV, Rotary

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
HEAD_SIZE, INPUTS = 32, 16  # a head's size and a layer's inputs are multiples of these
FEW_ROWS = 3  # at most, of a step that the kernels take as a whole
FEWEST_OUTPUTS = 6  # of each of its linear layers

_POINTER, _INTEGER, _FLOAT, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "add_norm": (*[_POINTER] * 4, _INTEGER, _INTEGER, _FLOAT),
    "rotate_and_store": (*[_POINTER] * 4, _FLOAT, *[_POINTER] * 4),
    "attend": (*[_POINTER] * 6, _INT),
    "gate": (*[_POINTER] * 3, _INTEGER),
    "step": (*[_POINTER] * 10, _FLOAT, _INT),
}


@dataclass(slots=True, frozen=True)
class HeadStates:
    """What a layer projects of R tokens."""

    query: torch.Tensor  # [R, heads, D]
    key: torch.Tensor  # [R, kv_heads, D]
    value: torch.Tensor  # [R, kv_heads, D]

    def sizes(self) -> Any:
        """``Heads`` of decode.cpp."""
        rows, heads, size = self.query.shape
        return _integers(rows, heads, self.key.shape[1], size)


@dataclass(slots=True, frozen=True)
class HeadNorms:
    """The norms of a layer's queries and keys, which Qwen3 has."""

    query: torch.Tensor  # [D]
    key: torch.Tensor  # [D]
    epsilon: float


@dataclass(slots=True, frozen=True)
class StepRows:
    """Where the R rows of a decode step write, and what they see; int64 all.

    A group is a few rows that share a prefix, whose keys are read once for all of them.
    """

    slots: torch.Tensor  # [R] in the table
    columns: torch.Tensor  # [R] that a row's token is written to
    widths: torch.Tensor  # [R] columns of its slot that a row sees
    order: torch.Tensor  # [R] the rows, those of a group side by side
    groups: torch.Tensor  # [G + 1] where each group begins in ``order``; the last is R
    prefix_of: torch.Tensor  # [G] index of a group's prefix; -1: it has none
    struct: Any = field(init=False)  # ``Rows`` of decode.cpp

    def __post_init__(self) -> None:
        tensors = (self.slots, self.columns, self.widths, self.order, self.groups, self.prefix_of)
        struct = _integers(*(tensor.data_ptr() for tensor in tensors), len(self.prefix_of))
        object.__setattr__(self, "struct", struct)


Prefixes = NDArray[np.int64]  # [P, 3] addresses of keys and values [kv_heads, length, D], and the length


@dataclass(slots=True, frozen=True)
class Network:
    """The weights of a model whose linear layers are plain ones, as addresses; a missing bias is 0."""

    layers: NDArray[np.int64]  # [L, 22] see ``Layer`` in decode.cpp
    final_norm: torch.Tensor  # [H]
    head: tuple[int, int]  # weight and bias of the output layer
    heads: tuple[int, int, int]  # query heads, key heads, D
    sizes: tuple[int, int, int, int]  # layers, hidden, intermediate, vocabulary
    epsilon: float  # of all norms


class DecodeKernels:
    """What lies between the matrix products of a decode step, for weights of one dtype.

    Tensors are contiguous, on the CPU and of that dtype. Sums are float32, and each result is rounded once.
    """

    def __init__(self, library: Path, dtype: torch.dtype):
        """Raises OSError where the library cannot be loaded."""
        self._library = ctypes.CDLL(str(library))
        self.dtype = dtype
        self.has_threads = bool(self._library.has_threads())
        self._add_norm, self._rotate_and_store, self._attend, self._gate, self._step = (
            self._function(name, arguments, dtype) for name, arguments in _ARGUMENTS.items()
        )

    def _function(self, name: str, arguments: tuple[Any, ...], dtype: torch.dtype) -> Any:
        function = getattr(self._library, f"{name}_{DTYPES[dtype]}")
        function.argtypes, function.restype = arguments, None
        return function

    def add_norm(
        self, x: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, epsilon: float
    ) -> torch.Tensor:
        """Adds ``added`` to the states ``x`` [R, H], in place; the root mean square norm of the sum."""
        out = torch.empty_like(x)
        rows, size = x.shape
        self._add_norm(
            self._at(out), self._at(x), self._at_or_null(added), self._at(weight), rows, size, epsilon
        )
        return out

    def rotate_and_store(
        self, states: HeadStates, norms: HeadNorms | None, rotary: Rotary | None, table: KV, rows: StepRows
    ) -> None:
        """Head norms and rotary embedding of queries and keys, in place; keys and values go into ``table``.

        ``table``: keys and values [slots, kv_heads, columns, D]. ``rotary``: cos and sin, [R, 1, D] each.
        """
        weights = (self._at(norms.query), self._at(norms.key)) if norms else (0, 0)
        self._rotate_and_store(
            *(self._at(states.query), self._at(states.key), self._at(states.value)),
            *(_integers(*weights), norms.epsilon if norms else 0.0, self._rotary(rotary)),
            *(self._table(table), rows.struct, states.sizes()),
        )

    def attend(self, states: HeadStates, table: KV, rows: StepRows, prefixes: Prefixes) -> torch.Tensor:
        """[R, heads * D]: every row's query over the row's prefix and the columns of its slot."""
        out = torch.empty_like(states.query)
        self._attend(
            *(self._at(out), self._at(states.query), self._table(table), rows.struct),
            *(prefixes.ctypes.data, states.sizes(), self.threads()),
        )
        return out

    def gate(self, gates: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """silu(gates) * up, [R, I] each; in place of ``gates``."""
        self._gate(self._at(gates), self._at(gates), self._at(up), gates.numel())
        return gates

    def step(
        self, x: torch.Tensor, rotary: Rotary, network: Network, table: KV, rows: StepRows
    ) -> torch.Tensor:
        """Logits [R, V] after the states ``x`` [R, H], which change: a whole decode step of few rows.

        ``table``: that of any layer, for its strides.
        """
        logits = x.new_empty(len(x), network.sizes[3])
        self._step(
            *(self._at(logits), self._at(x), self._rotary(rotary), network.layers.ctypes.data),
            *(self._at(network.final_norm), _integers(*network.head), self._table(table), rows.struct),
            *(_integers(len(x), *network.heads), _integers(*network.sizes)),
            *(network.epsilon, self.threads()),
        )
        return logits

    def _at(self, tensor: torch.Tensor) -> int:
        """The address of a tensor. Raises TypeError for one that the library would read wrongly."""
        if tensor.dtype != self.dtype or not tensor.is_contiguous():
            raise TypeError(f"a decode kernel of {self.dtype} was given {tensor.dtype}, {tensor.stride()}")
        return tensor.data_ptr()

    def _at_or_null(self, tensor: torch.Tensor | None) -> int | None:
        return None if tensor is None else self._at(tensor)

    def _rotary(self, rotary: Rotary | None) -> Any:
        """``Rotary`` of decode.cpp."""
        return _integers(*((self._at(rotary[0]), self._at(rotary[1])) if rotary else (0, 0)))

    def _table(self, table: KV) -> Any:
        """``Table`` of decode.cpp."""
        return _integers(self._at(table[0]), self._at(table[1]), *table[0].stride()[:2])

    def threads(self) -> int:
        """As many as torch's own kernels use."""
        return torch.get_num_threads()


def _integers(*numbers: int) -> Any:
    """A struct of addresses (0: null) and numbers, 8 bytes each."""
    return (_INTEGER * len(numbers))(*numbers)


@cache
def _loaded(dtype: torch.dtype) -> DecodeKernels | str:
    """The kernels, or why there are none: an error that is kept would keep all that its traceback holds."""
    try:
        return _load(dtype)
    except BuildError as error:
        if not error.expected:
            warnings.warn(
                f"Decode steps run without compiled kernels: {clause(error)}. They are slower, and equal but "
                "for rounding; policy.kernels=off says so without this warning.",
                stacklevel=2,
            )
        return str(error)


def _load(dtype: torch.dtype) -> DecodeKernels:
    try:
        return DecodeKernels(build_library(), dtype)
    except OSError:  # of another system with the same processor
        library = build_library(again=True)
    try:
        return DecodeKernels(library, dtype)
    except OSError as error:
        library.unlink(missing_ok=True)
        raise BuildError(f"the library cannot be loaded: {clause(error)}") from error


def load_kernels(dtype: torch.dtype) -> DecodeKernels:
    """The kernels for weights of ``dtype``, float32 or bfloat16; compiled where this machine has not yet.

    Raises BuildError where they are not to be had; warns once where something is wrong with the machine.
    """
    found = _loaded(dtype)
    if isinstance(found, str):
        raise BuildError(found)
    if not found.has_threads and torch.get_num_threads() > 1:
        raise BuildError("the compiler has no OpenMP, and torch uses several threads")
    return found
