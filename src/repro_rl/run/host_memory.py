"""Memory of this process that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def return_freed_memory() -> None:
    """Give freed pages of the heap back to the system, where the C library is glibc; elsewhere do nothing.

    glibc keeps tensors of up to 32 MiB in one heap, of which it returns the end alone. Rollouts and updates
    leave holes of other sizes in it, so without this the process grows over the iterations.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's ``malloc_trim(pad)``; None without it (macOS, Windows, musl)."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
