"""Whether a process of this machine is running, by its id."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def is_running(pid: int) -> bool:
    """Whether a Python process of this id runs here. An id is used again: another program is not it.

    True where that cannot be told.
    """
    if pid == os.getpid():
        return True
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # of another user; what it is can be read all the same
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
    except (OSError, IndexError):
        return not Path("/proc/self/stat").exists()  # it has just ended; or there is no /proc
    return b"python" in command or b"repro" in command
