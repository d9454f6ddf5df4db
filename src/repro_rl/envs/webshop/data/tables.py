"""Three structures on disk, used from a memory map: rows of bytes, names, postings.

Opening reads nothing, so it takes little time and memory even for a million products. All processes of a
machine share one copy in the page cache.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

Numbers = np.ndarray[Any, Any]  # one dimension, memory-mapped


def encode(text: str) -> bytes:
    """UTF-8 that also takes lone surrogates."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """The text that ``encode`` was given."""
    return data.decode("utf-8", "surrogatepass")


def load_bytes(path: Path) -> memoryview[int]:
    """A file, memory-mapped."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")  # an empty file cannot be mapped
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def load_array(folder: Path, name: str) -> Numbers:
    """The numbers of ``name``, such as "order.u4" (4 bytes each, little-endian), memory-mapped.

    Raises OSError, or ValueError for a file that does not hold whole numbers.
    """
    data = load_bytes(folder / name)
    size = int(name[-1])
    if len(data) % size:
        raise ValueError(f"{name}: {len(data)} bytes are no whole numbers of {size} bytes")
    return np.frombuffer(data, dtype=f"<{name[-2:]}")


def save_array(folder: Path, name: str, values: Any) -> None:
    """Save numbers for ``load_array``; the end of the name is the type."""
    (folder / name).write_bytes(np.asarray(values, dtype=f"<{name[-2:]}").tobytes())


class RowsWriter:
    """Appends rows of bytes: ``name.bin`` holds them back to back, ``name.ends.u8`` where each one ends."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.ends = array("Q")
        self.size = 0
        self.file: IO[bytes] = open(folder / f"{name}.bin", "wb")  # noqa: SIM115 (closed by close)

    def add(self, row: bytes) -> None:
        self.size += self.file.write(row)
        self.ends.append(self.size)

    def close(self) -> None:
        self.file.close()
        save_array(self.folder, f"{self.name}.ends.u8", self.ends)


class Rows:
    """Rows of bytes, numbered 0 .. n-1, read from the memory-mapped file on access.

    Raises ValueError when the two files of a table do not belong together.
    """

    def __init__(self, folder: Path, name: str):
        self.ends = load_array(folder, f"{name}.ends.u8")
        self.data = load_bytes(folder / f"{name}.bin")
        if len(self.data) != (int(self.ends[-1]) if len(self.ends) else 0):
            raise ValueError(f"{name}.bin and {name}.ends.u8 do not belong together")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: int) -> bytes:
        return bytes(self.view(row))

    def view(self, row: int) -> memoryview[int]:
        """A row, not copied."""
        return self.data[int(self.ends[row - 1]) if row else 0 : int(self.ends[row])]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(encode(text), digest_size=8).digest(), "little")


def save_hashes(folder: Path, name: str, texts: Iterable[str]) -> None:
    """Save ``texts`` (row 0, 1, ...) sorted by hash, so that ``Names`` finds a row by binary search."""
    hashes = np.fromiter(map(_hash, texts), dtype="<u8")
    order = np.argsort(hashes, kind="stable")  # of equal texts the first row comes first
    save_array(folder, f"{name}.hash.u8", hashes[order])
    save_array(folder, f"{name}.row.u4", order)


class Names:
    """Text -> row, by a binary search over sorted 64-bit hashes.

    text_of: the text of a row. It is compared for every row with the right hash, so collisions are harmless.
    """

    def __init__(self, folder: Path, name: str, text_of: Callable[[int], str]):
        self.hashes = load_array(folder, f"{name}.hash.u8")
        self.rows = load_array(folder, f"{name}.row.u4")
        if len(self.hashes) != len(self.rows):
            raise ValueError(f"{name}.hash.u8 and {name}.row.u4 do not belong together")
        self.text_of = text_of

    def find(self, text: str) -> int | None:
        """The first row with exactly this text, None where there is none."""
        key = np.uint64(_hash(text))
        at = int(np.searchsorted(self.hashes, key))
        while at < len(self.hashes) and self.hashes[at] == key:
            row = int(self.rows[at])
            if self.text_of(row) == text:
                return row
            at += 1
        return None


class PostingsWriter:
    """Collects key -> numbers in memory (4 bytes per number), then saves them."""

    def __init__(self) -> None:
        self.numbers: dict[str, array[int]] = {}

    def add(self, key: str, number: int) -> None:
        numbers = self.numbers.get(key)
        if numbers is None:
            numbers = self.numbers[key] = array("I")
        numbers.append(number)

    def save(self, folder: Path, name: str) -> None:
        keys = RowsWriter(folder, f"{name}.keys")
        lists = RowsWriter(folder, f"{name}.numbers")
        for key, numbers in self.numbers.items():
            keys.add(encode(key))
            lists.add(np.asarray(numbers, dtype="<u4").tobytes())
        keys.close()
        lists.close()
        save_hashes(folder, name, self.numbers)


class Postings:
    """Key -> ascending numbers."""

    def __init__(self, folder: Path, name: str):
        self.keys = Rows(folder, f"{name}.keys")
        self.lists = Rows(folder, f"{name}.numbers")
        self.names = Names(folder, name, lambda row: decode(self.keys[row]))
        if not len(self.keys) == len(self.lists) == len(self.names.rows):
            raise ValueError(f"the files {name}.* do not belong together")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, key: str) -> Sequence[int]:
        """A read-only sequence of ints; empty for an unknown key."""
        row = self.names.find(key)
        return () if row is None else self.lists.view(row).cast("I")
