"""Reading a GGUF file: its metadata and the table of its tensors, each byte checked before it is believed.

The format is llama.cpp's (ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian: a magic word,
counts, key-value pairs, one entry a tensor, then the tensors' data. We read it ourselves, because a
vocabulary of 150,000 strings takes the ``gguf`` package most of a minute. That package knows the block
formats.
"""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError, require_extra

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # of the tensors' data where the file names none
MAX_ALIGNMENT = 1 << 20  # bytes
MAX_DIMENSIONS = 4  # ggml's
MAX_ELEMENTS = 20_000_000  # of an array of the metadata; a vocabulary has some hundred thousand
# Metadata types of one fixed size; 8 is a string and 9 an array.
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
INSTEAD = "Take the model's Hugging Face folder instead"  # ends messages on what is not supported
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(slots=True, frozen=True)
class TensorEntry:
    """Where one tensor lies in the file."""

    name: str
    shape: tuple[int, ...]  # rows first, as in torch; the file holds it the other way round
    kind: int  # ggml's number of the block format
    start: int  # of its data, bytes from the beginning of the file
    size: int  # of its data, bytes


@dataclass(slots=True, frozen=True)
class GgufHeader:
    """What a GGUF file says of its model."""

    path: Path
    metadata: dict[str, Any]  # by the file's own keys; arrays as lists
    tensors: dict[str, TensorEntry]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, such as "qwen2"."""
        return str(self.metadata["general.architecture"])

    def key(self, name: str) -> Any:
        """The value of the architecture's key ``name``, such as "block_count"; None where it is absent."""
        return self.metadata.get(f"{self.architecture}.{name}")


def gguf_package() -> Any:
    """The ``gguf`` package. Raises MissingDependencyError where it is not installed."""
    require_extra("gguf")
    import gguf

    return gguf


def read_header(path: str | Path) -> GgufHeader:
    """Metadata and tensor table of a GGUF file; no tensor's data is read.

    Raises DataError naming the file when it is missing, no GGUF file, cut off, damaged, one of several parts,
    or no language model; MissingDependencyError without the ``gguf`` package.
    """
    file = Path(path)
    _check_whole(file)
    try:
        with open(file, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(file, data).header()
    except OSError as error:
        raise DataError(f"it cannot be read ({error})", file=file) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        what = str(error) if file.stat().st_size else "it is empty"
        raise DataError(f"{what}; download or copy it again", file=file) from error


def _check_whole(file: Path) -> None:
    """Raises DataError for a file that is not there, and for one of several parts."""
    if not file.is_file():
        raise DataError("there is no such GGUF file", file=file)
    part = PART.search(file.name)
    if part and int(part[2]) > 1:
        raise DataError(
            f"it is part {int(part[1])} of {int(part[2])}; join them with 'llama-gguf-split --merge' first",
            file=file,
        )


class _Reader:
    """A position in the mapped file that never leaves it."""

    def __init__(self, file: Path, data: mmap.mmap):
        self.file, self.data, self.at = file, data, 0

    def header(self) -> GgufHeader:
        tensor_count, pairs = self._counts()
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string()
            if key in metadata:
                raise self._damaged(f"key {key} twice")
            metadata[key] = self._value(self._number("I"))
        self._check_kind(metadata)
        table = [self._entry() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT:
            raise self._damaged(f"alignment {alignment}")
        begin = -(-self.at // alignment) * alignment
        tensors = {name: self._placed(name, shape, kind, begin + at) for name, shape, kind, at in table}
        if len(tensors) != len(table):
            raise self._damaged("a tensor twice")
        return GgufHeader(self.file, metadata, tensors)

    def _counts(self) -> tuple[int, int]:
        if self.data[:4] != MAGIC:
            raise DataError("it is no GGUF file: it does not begin with 'GGUF'", file=self.file)
        self.at = 4
        version = self._number("I")
        if version not in VERSIONS:
            if version and version % 0x10000 == 0:
                raise DataError("it is a big-endian GGUF file; these are not supported", file=self.file)
            raise DataError(
                f"it is GGUF version {version}; versions 2 and 3 are supported. Convert the model again",
                file=self.file,
            )
        return self._number("Q"), self._number("Q")

    def _check_kind(self, metadata: dict[str, Any]) -> None:
        """Raises DataError for what is no whole language model."""
        if not isinstance(metadata.get("general.architecture"), str):
            raise self._damaged("no general.architecture")
        kind = metadata.get("general.type", "model")
        if kind != "model":
            raise DataError(f"it holds a {kind}, not a whole language model", file=self.file)
        parts = metadata.get("split.count", 1)
        if isinstance(parts, int) and parts > 1:
            raise DataError(
                f"it is one of {parts} parts; join them with 'llama-gguf-split --merge' first", file=self.file
            )

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._damaged(f"tensor {name} with {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _placed(self, name: str, shape: tuple[int, ...], kind: int, start: int) -> TensorEntry:
        gguf = gguf_package()
        try:
            per_block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        except (ValueError, KeyError) as error:
            raise DataError(
                f"tensor {name} has the block format {kind}, which this gguf package does not know; "
                f"pip install -U gguf",
                file=self.file,
            ) from error
        if not all(shape) or shape[-1] % per_block:
            raise self._damaged(f"tensor {name} of the shape {list(shape)}")
        size = prod(shape) // per_block * block_bytes
        if start + size > len(self.data):
            raise DataError(
                f"it is cut off: tensor {name} ends at byte {start + size:,}, the file at "
                f"{len(self.data):,}; download or copy it again",
                file=self.file,
            )
        return TensorEntry(name, shape, kind, start, size)

    def _value(self, kind: int) -> Any:
        if kind in FORMATS:
            return self._number(FORMATS[kind])
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            raise self._damaged(f"metadata of the type {kind}")
        element, count = self._number("I"), self._number("Q")
        if count > MAX_ELEMENTS:
            raise self._damaged(f"an array of {count:,} elements, beyond the limit of {MAX_ELEMENTS:,},")
        if element in FORMATS:
            layout = struct.Struct(f"<{FORMATS[element]}")
            return [value for (value,) in layout.iter_unpack(self._bytes(count * layout.size))]
        if element == STRING:
            self._need(count * 8)  # every string has a length before it
            return [self._string() for _ in range(count)]
        raise self._damaged(f"an array of the type {element}")

    def _string(self) -> str:
        try:
            return self._bytes(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged("text that is not UTF-8") from error

    def _number(self, letter: str) -> Any:
        layout = struct.Struct(f"<{letter}")
        return layout.unpack(self._bytes(layout.size))[0]

    def _bytes(self, count: int) -> bytes:
        self._need(count)
        self.at += count
        return self.data[self.at - count : self.at]

    def _need(self, count: int) -> None:
        if self.at + count > len(self.data):
            raise DataError(
                f"it is cut off or damaged: its header goes on behind the last byte, {len(self.data):,}; "
                f"download or copy it again",
                file=self.file,
            )

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"it is damaged: {what} near byte {self.at:,}; download or copy it again", file=self.file
        )
