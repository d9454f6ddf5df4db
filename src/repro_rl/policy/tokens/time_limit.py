"""Ending Python code of others that takes too long, such as a template with an endless loop."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLong(Exception):
    """Code did not end within its time."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TookTooLong in the code inside when it runs longer than ``seconds``.

    It works in any thread, between two instructions of Python: not within one call of a C function.
    """
    thread = threading.get_ident()
    done, lock = False, threading.Lock()

    def end() -> None:
        with lock:
            if not done:
                _raise_in(thread, TookTooLong)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except TookTooLong:
        raise TookTooLong(f"it did not end within {seconds:g} seconds") from None
    finally:
        with lock:
            done = True
        timer.cancel()


def _raise_in(thread: int, error: type[Exception]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
