"""Reads what a run has written into W&B's own file (``run-ID.wandb``), for which the package has no reader.

The file is a log of LevelDB's format (github.com/google/leveldb/blob/main/doc/log_format.md) behind a header
of 7 bytes; its records are the package's protocol buffers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER = 7  # bytes at the beginning, counted as part of the first block
BLOCK = 32_768  # bytes
FRAGMENT = 7  # bytes before each fragment: checksum (4), length (2), kind (1)
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4  # kinds of fragments


def history(run_folders: Path, key: str) -> list[dict[str, Any]]:
    """The rows that the offline runs with this id hold, in order: every logged value, and ``_step``.

    A file that was cut off by a kill is read as far as it goes.
    """
    return [row for path in sorted(run_folders.glob(f"*-{key}/run-{key}.wandb")) for row in rows_of(path)]


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one file."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            yield {"_step": int(record.history.step.num), **row}


def _records(data: bytes) -> Iterator[bytes]:
    position, parts = HEADER, b""
    while position + FRAGMENT <= len(data):
        if BLOCK - position % BLOCK < FRAGMENT:  # too short for another fragment: padding
            position += BLOCK - position % BLOCK
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        body = data[position + FRAGMENT : position + FRAGMENT + length]
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or len(body) < length:
            return
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            yield parts
        position += FRAGMENT + length
