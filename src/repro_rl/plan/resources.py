"""What this process has used: seconds and bytes."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def clock() -> float:
    """Seconds. With one thread on a CPU those of the processor: others may use this machine at the time."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.process_time() if alone else time.perf_counter()


def memory_now() -> float:
    """Bytes this process holds; its peak where the system does not tell."""
    return _status("VmRSS") or memory_peak()


def memory_peak() -> float:
    """Most bytes this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _status(name: str) -> float:
    """Bytes that Linux names for this process; 0 where it does not."""
    try:
        lines = STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0.0
    line = next((line for line in lines if line.startswith(name + ":")), None)
    return 1024.0 * float(line.split()[1]) if line else 0.0
