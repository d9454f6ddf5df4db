"""Two ways of doing the same job, in turn: what the speed benchmarks share.

Seconds are the processor's (``process_time``, one thread): others may use the machine at the time. The two
sides alternate, so that what others do to caches and clock hits both. Wall time is kept beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Times:
    """Seconds of every repetition."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def add(self, cpu: float, wall: float) -> None:
        self.cpu.append(cpu)
        self.wall.append(wall)

    def spend(self, work: Callable[[], Any]) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        self.add(time.process_time() - cpu, time.perf_counter() - wall)
        return result


def alternate(
    one: Callable[[], Any], other: Callable[[], Any], repetitions: int, warm: int = 1
) -> tuple[Times, Times]:
    """Run both ``repetitions`` times, each first every other time, after ``warm`` runs that do not count."""
    for _ in range(warm):
        one(), other()
    first, second = Times(), Times()
    for turn in range(repetitions):
        order = [(first, one), (second, other)]
        for times, work in order if turn % 2 == 0 else reversed(order):
            times.spend(work)
    return first, second


def ratio(slow: list[float], fast: list[float]) -> str:
    """Median of the paired ratios, and their range."""
    pairs = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return f"{statistics.median(pairs):.2f} ({pairs[0]:.2f} to {pairs[-1]:.2f})"


def median_ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):,.0f}"


def versions(*names: str) -> str:
    """What ran: Python, torch and the packages, one thread."""
    import platform
    from importlib.metadata import version

    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])
