"""Locks on questions between the threads of a process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

POLL = 0.2  # seconds between looks at whether a wait for a question is over


@dataclass(slots=True)
class _Held:
    """The lock of a question that is being asked."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0  # threads that have it or wait for it


class QuestionLocks:
    """A lock for each question that is being asked; the others take no memory."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lock(self, key: str, stop: threading.Event) -> Iterator[None]:
        """Lock the question ``key``; wait while another thread has it.

        Returns without the lock once ``stop`` is set.
        """
        with self._lock:
            held = self._held.setdefault(key, _Held())
            held.users += 1
        locked = False
        try:
            while not (locked or stop.is_set()):
                locked = held.lock.acquire(timeout=POLL)
            yield
        finally:
            if locked:
                held.lock.release()
            with self._lock:
                held.users -= 1
                if not held.users:
                    del self._held[key]
