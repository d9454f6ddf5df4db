"""Stateless random numbers: a value is a function of names, never of what was drawn before.

So a sampled token does not depend on which other episodes share its batch, and a resumed run needs no saved
generator state. The mixing function is splitmix64 (public domain constants).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1


def name_key(*names: object) -> int:
    """A 64-bit key from any printable names, the same in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def stream_keys(
    base: int, *columns: NDArray[np.integer] | int, count: int | None = None
) -> NDArray[np.uint64]:
    """Keys [N] that mix ``base`` with integer columns, each a scalar or [N]."""
    length = count or max((len(c) for c in columns if isinstance(c, np.ndarray)), default=1)
    keys = np.full(length, base & _MASK, dtype=np.uint64)
    for column in columns:
        keys = _mix(keys ^ np.asarray(column).astype(np.uint64))
    return keys


def uniforms(keys: NDArray[np.uint64], position: int | NDArray[np.integer]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one for each key, for the given token position, of all or of each."""
    mixed = _mix(keys ^ _mix(np.atleast_1d(np.asarray(position)).astype(np.uint64)))
    return (mixed >> np.uint64(11)).astype(np.float64) * (1.0 / (1 << 53))
