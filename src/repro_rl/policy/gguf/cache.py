"""GGUF files as models: converted once, into a folder of the cache, and found there again.

``<cache>/gguf/<file's name>-<key>/model``; the key names the file's content: its size, time of change,
first 16 MB (all of the metadata) and last megabyte. A folder appears in one rename when it is whole, and only
one process converts at a time.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from filelock import FileLock

from repro_rl.errors import DataError
from repro_rl.files import cache_root, sweep_temporaries
from repro_rl.policy.gguf.convert import OnDone, convert_gguf, is_converted

SUFFIX = ".gguf"
VERSION = 1  # of what convert.py writes; another one converts anew
HEAD, TAIL = 16 << 20, 1 << 20  # bytes of a file that its key is made of
KEY_LETTERS = 16

log = logging.getLogger(__name__)


def is_gguf(path: str | Path) -> bool:
    """Whether a path or name means a GGUF file, by its ending."""
    return str(path).lower().endswith(SUFFIX)


def model_folder(path: str | Path, on_done: OnDone = lambda done, total: None) -> str | Path:
    """``path`` as it is, or the model folder of the GGUF file that it means, converted at the first call.

    Raises what ``convert_gguf`` raises.
    """
    if not is_gguf(path):
        return path
    folder = cached_folder(path)
    if is_converted(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / "lock"):
        if not is_converted(folder):  # another process may have been faster
            sweep_temporaries(folder.parent)
            log.info("Converting %s once into %s", path, folder)
            convert_gguf(path, folder, on_done)
    return folder


def cached_folder(path: str | Path) -> Path:
    """Where the model of a GGUF file belongs, converted or not. Raises DataError for a missing file."""
    file = Path(path).expanduser()
    try:
        state = file.stat()
        with open(file, "rb") as handle:
            content = handle.read(HEAD)
            handle.seek(max(0, state.st_size - TAIL))
            content += handle.read(TAIL)
    except OSError as error:
        raise DataError(f"the GGUF file cannot be read ({error})", file=path) from error
    text = f"{VERSION} {state.st_size} {state.st_mtime_ns} ".encode()
    key = hashlib.sha256(text + content).hexdigest()[:KEY_LETTERS]
    return cache_root() / "gguf" / f"{file.stem}-{key}" / "model"
