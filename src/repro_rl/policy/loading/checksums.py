"""Sizes and SHA-256 sums of a model folder's files, in its state.json: a damaged file is an error.

safetensors has no checksum of its own, and one flipped bit of a weight changes all that follows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.errors import CheckpointError, DataError
from repro_rl.files import check_record, parse_object, read_bytes
from repro_rl.files.names import CHECKPOINTS
from repro_rl.files.records import Count, Text

STATE_FILE = "state.json"  # of a checkpoint; a folder without it is not one
OPTIMIZER_FILE = "optimizer.safetensors"
SUMS = "files"  # the sums in it; older checkpoints have none
OWN_SUM = "state_sha256"  # the sum of state.json itself, all but this field
WEIGHTS = (".safetensors", ".bin")


class FileSum(TypedDict):
    """What was written of one file."""

    size: Count  # bytes
    sha256: Text  # hexadecimal


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """``state`` with its own sum, so that another value in it is found too."""
    return {**state, OWN_SUM: _own_sum(state)}


def read_sealed(folder: Path) -> dict[str, Any]:
    """state.json of a model folder without its own sum; empty without the file.

    Raises CheckpointError where it cannot be read, or holds other values than were written.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return {}
    try:
        state = parse_object(read_bytes(path))
        written = state.pop(OWN_SUM, None)  # older checkpoints have none
        if SUMS in state:
            check_record(dict[str, FileSum], state[SUMS])
    except DataError as error:
        raise _damaged(folder, f"{path} cannot be read ({error})") from error
    if written not in (None, _own_sum(state)):
        raise _damaged(folder, f"the content of {path} is not what was written (SHA-256)")
    return state


def _own_sum(state: Mapping[str, Any]) -> str:
    written = json.loads(json.dumps(state))  # a key that is a number becomes a text
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()


def file_sums(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file in ``folder`` but state.json, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STATE_FILE)
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
    }


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(model: Path) -> str:
    """Tells models apart: sha256 over size, first and last MiB of every weight file; "" for none.

    ``model``: a model folder, or a file of weights such as a GGUF.
    """
    files = sorted(model.glob("*.safetensors")) if model.is_dir() else [model] if model.is_file() else []
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            digest.update(f"{path.name} {size} ".encode() + handle.read(1 << 20))
            handle.seek(max(0, size - (1 << 20)))
            digest.update(handle.read(1 << 20))
    return digest.hexdigest()[:16] if files else ""


def check_files(folder: Path, *, only: str | None = None, but: str | None = None) -> None:
    """The files of a model folder must be those that were written, where its state.json has their sums.

    ``only``: this file alone; ``but``: all except this one. Raises CheckpointError naming the first other.
    """
    sums = read_sealed(folder).get(SUMS)
    if sums is None:
        return
    unknown = sorted(p.name for p in folder.iterdir() if p.suffix in WEIGHTS and p.name not in sums)
    if unknown:
        raise _damaged(folder, f"{folder / unknown[0]} is not among the files that were written")
    for name, written in sums.items():
        if name == but or only not in (None, name):
            continue
        path = folder / name
        if not path.is_file():
            raise _damaged(folder, f"{path} is missing")
        if path.stat().st_size != written["size"]:
            raise _damaged(
                folder, f"{path} has {path.stat().st_size:,} bytes, {written['size']:,} were written"
            )
        if sha256(path) != written["sha256"]:
            raise _damaged(folder, f"the content of {path} is not what was written (SHA-256)")


def _damaged(folder: Path, what: str) -> CheckpointError:
    advice = (
        f"Delete {folder} to use an older checkpoint"
        if folder.parent.name == CHECKPOINTS
        else f"Copy {folder} again, or delete it and repeat the command that made it"
    )
    return CheckpointError(
        f"{what}: damaged, or edited since. {advice}; if the change is yours, remove "
        f"{SUMS!r} and {OWN_SUM!r} from {folder / STATE_FILE}."
    )
