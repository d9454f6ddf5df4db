"""The files of a catalogue: written atomically, checked when opened."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.envs.webshop.data.nouns import nouns, tagger_name
from repro_rl.envs.webshop.data.products import HumanInstruction, Product, document_text
from repro_rl.envs.webshop.data.tables import (
    PostingsWriter,
    Rows,
    RowsWriter,
    encode,
    save_array,
    save_hashes,
)
from repro_rl.envs.webshop.search.index import SearchIndex
from repro_rl.errors import DataError
from repro_rl.files import check_record, naming, read_json, write_json
from repro_rl.files.limits import MAX_TEXT
from repro_rl.files.records import Count, Text

FORMAT = "repro-rl webshop catalogue"
VERSION = 1
MANIFEST = "manifest.json"
EVERY = 256  # products between two calls of on_done
OnDone = Callable[[str, int], None]  # (phase, products done in it so far)


class _File(TypedDict):
    """A file of a catalogue."""

    bytes: Count
    crc32: Count


class _Manifest(TypedDict):
    """The fields of a manifest that are used."""

    digest: Text
    products: Count
    files: dict[Text, _File]


def is_catalogue(folder: Path) -> bool:
    """Whether the folder holds a catalogue, of whatever version."""
    try:
        return read_json(folder / MANIFEST).get("format") == FORMAT
    except DataError:
        return False


def write_files(
    products: Iterable[Product],
    folder: Path,
    source: dict[str, Any],
    on_done: OnDone | None,
    replace: bool = True,
) -> None:
    """Write a catalogue to ``folder``; see ``catalogue.write_catalogue``.

    replace: whether a catalogue that exists when all files are written is replaced, or stays.
    """
    if _holds_other_files(folder):
        raise DataError("holds something else than a catalogue; choose another folder", file=folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(folder):
            temporary.mkdir()
            _fill(temporary, products, source, on_done or (lambda phase, count: None))
            _publish(temporary, folder, replace)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, products: Iterable[Product], source: dict[str, Any], on_done: OnDone) -> None:
    postings = {name: PostingsWriter() for name in ("query", "category", "attribute")}
    asins, digest = _write_rows(folder, products, postings, on_done)
    on_done("products", len(asins))
    if not asins:
        raise DataError("there is no product to write")
    order = sorted(range(len(asins)), key=asins.__getitem__)
    for first, second in itertools.pairwise(order):
        if asins[first] == asins[second]:
            raise DataError("two products have this ASIN", record=asins[first], field="asin")
    save_array(folder, "order.u4", order)
    save_hashes(folder, "asin", asins)
    for name, lists in postings.items():
        lists.save(folder, name)
    index = SearchIndex.build(_texts(Rows(folder, "products"), order, on_done))
    (folder / "index").mkdir()
    index.save(folder / "index")
    on_done("index", len(asins))
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "products": len(asins),
        "digest": digest,
        "tagger": tagger_name(),
        **{f"{name}_count": len(lists.numbers) for name, lists in postings.items()},
        "index_bytes": int(index.nbytes),
        "source": source,
        "files": {
            file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "crc32": _checksum(file)}
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    }
    write_json(folder / MANIFEST, manifest)


def _write_rows(
    folder: Path, products: Iterable[Product], postings: dict[str, PostingsWriter], on_done: OnDone
) -> tuple[list[str], str]:
    """Write products, nouns and ASINs, and fill ``postings``; returns (ASINs, the catalogue's digest)."""
    rows, noun_rows, asin_rows = (RowsWriter(folder, name) for name in ("products", "nouns", "asins"))
    asins: list[str] = []
    digest = hashlib.sha256()
    try:
        for number, product in enumerate(products):
            text = pack(product)
            digest.update(text + b"\n")
            rows.add(zlib.compress(text, 3))
            noun_rows.add(json.dumps(nouns(product.title)).encode())
            asin_rows.add(encode(product.asin))
            asins.append(product.asin)
            postings["query"].add(product.query, number)
            postings["category"].add(product.category, number)
            for attribute in dict.fromkeys(product.attributes):
                postings["attribute"].add(attribute, number)
            if number % EVERY == 0:
                on_done("products", number)
    finally:
        for writer in (rows, noun_rows, asin_rows):
            writer.close()
    return asins, digest.hexdigest()


def _texts(rows: Rows, order: list[int], on_done: OnDone) -> Iterator[str]:
    """The indexed texts, by ascending ASIN, which is the order of ties."""
    for count, number in enumerate(order):
        yield document_text(unpack_row(rows[number]))
        if count % EVERY == 0:
            on_done("index", count)


def pack(product: Product) -> bytes:
    """Canonical JSON: fixed order of fields, no blanks, UTF-8. A catalogue's digest is taken over these."""
    fields = {name: getattr(product, name) for name in Product.__slots__}
    fields["human"] = [(human.text, human.attributes, human.options) for human in product.human]
    return encode(json.dumps(fields, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def unpack(row: bytes) -> Product:
    """The inverse of ``pack``. Raises ValueError, KeyError, TypeError or AttributeError for a damaged row."""
    fields = json.loads(row)
    for name in ("bullets", "prices", "attributes", "instruction_attributes"):
        fields[name] = tuple(fields[name])
    fields["options"] = {name: tuple(values) for name, values in fields["options"].items()}
    fields["human"] = tuple(
        HumanInstruction(text, tuple(attributes), tuple(options))
        for text, attributes, options in fields["human"]
    )
    return Product(**fields)


def unpack_row(row: bytes) -> Product:
    """The product of a row of ``products.bin``.

    Raises zlib.error, or what ``unpack`` raises, for a damaged row and one beyond the limit of a text.
    """
    stream = zlib.decompressobj()
    text = stream.decompress(row, MAX_TEXT)
    if not stream.eof:
        raise ValueError(f"the row is cut off, or larger than the limit of {MAX_TEXT:,} bytes")
    return unpack(text)


def _checksum(file: Path, write: bool = True) -> int:
    """CRC-32 of a file. ``write``: also flush the file to the disk."""
    total = 0
    with open(file, "rb") as handle:
        while chunk := handle.read(1 << 20):
            total = zlib.crc32(chunk, total)
        if write:
            os.fsync(handle.fileno())
    return total


def _holds_other_files(folder: Path) -> bool:
    """Whether the path holds anything but a catalogue or an empty folder."""
    for _ in range(5):  # another process may be replacing a catalogue
        try:
            if is_catalogue(folder) or not os.listdir(folder):
                return False
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return True
        time.sleep(0.02)
    return True


def _publish(temporary: Path, folder: Path, replace: bool) -> None:
    """Rename the finished folder to its final path; a catalogue that exists there is moved away, or stays."""
    old = temporary.with_name(f"{temporary.name}.old.tmp")
    for _ in range(100):
        try:
            os.rename(temporary, folder)
            return
        except OSError as problem:
            if not folder.exists():
                last = problem  # another process is between its two renames; or the rename is impossible
                time.sleep(0.01)
                continue
            if not replace:
                return
            last = problem
        try:
            os.rename(folder, old)
        except FileNotFoundError:
            continue
        if not is_catalogue(old):
            os.rename(old, folder)
            raise DataError("holds something else than a catalogue; choose another folder", file=folder)
        shutil.rmtree(old, ignore_errors=True)
    raise last


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest of a catalogue. Raises DataError."""
    path = folder / MANIFEST
    if not path.exists():
        raise DataError(
            "there is no WebShop catalogue here; make one with 'repro-rl data webshop import' from your "
            "files, or with 'repro-rl data webshop generate' from none",
            file=folder,
        )
    try:
        manifest = read_json(path, "manifest of a catalogue")
    except DataError as problem:
        raise damaged(path, str(problem)) from problem
    if "format" not in manifest:
        raise damaged(path, "it names no format")
    if manifest["format"] != FORMAT:
        raise DataError("this is the manifest of something else than a WebShop catalogue", file=path)
    if manifest.get("version") != VERSION:
        raise DataError(
            f"catalogue format {manifest.get('version')}, this package reads {VERSION}: import it again",
            file=path,
        )
    try:
        check_record(_Manifest, manifest)
    except DataError as problem:
        raise damaged(path, str(problem)) from problem
    for name in manifest["files"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise damaged(path, f"the file {name!r} lies outside")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any], contents: bool) -> None:
    """Check the size of every file, with ``contents`` also its checksum. Raises DataError."""
    for name, expected in manifest["files"].items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise damaged(path, f"{size:,} bytes instead of {expected['bytes']:,}")
            if contents and _checksum(path, write=False) != expected["crc32"]:
                raise damaged(path, "its checksum is wrong")
        except OSError as problem:
            raise damaged(path, problem.strerror or str(problem)) from problem


def damaged(path: Path, problem: str, record: object = None) -> DataError:
    """The error for a damaged part of a catalogue."""
    message = f"this part of the catalogue is damaged or missing ({problem}): import it again"
    return DataError(message, file=path, record=record)
