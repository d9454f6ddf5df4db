"""The catalogue on disk, and the object that all environments of a process share.

A folder holds the products (compressed JSON, one row each), the search index, title nouns, and lists of
products by query, category and attribute. Everything is memory-mapped, so opening takes milliseconds at any
size. A catalogue is written atomically and never changed.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from repro_rl.envs.webshop.data.catalogue_files import (
    MANIFEST,
    VERSION,
    OnDone,
    check_files,
    damaged,
    is_catalogue,
    read_manifest,
    unpack_row,
    write_files,
)
from repro_rl.envs.webshop.data.generate import generate_catalogue
from repro_rl.envs.webshop.data.nouns import tagger_name
from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.data.reader import ReadReport, new_report, products_from_raw, read_products
from repro_rl.envs.webshop.data.tables import Names, Postings, Rows, decode, load_array
from repro_rl.envs.webshop.search.index import SearchIndex
from repro_rl.errors import DataError
from repro_rl.files import cache_root, check_record, parse_json
from repro_rl.files.records import Text

RESULTS = 50  # products that a search returns at most
CACHED_PRODUCTS = 5_000  # decoded products in memory
CACHED_QUERIES = 2_048  # search results in memory
CHECKED = 64 << 20  # bytes of a catalogue up to which opening verifies all checksums

# Names of the original's files: for its small set and for the full one.
SMALL = ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins_1000.json")
FULL = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")


class Catalogue:
    """The products, numbered 0 .. n-1 in file order, with search and look-ups. Immutable.

    ``manifest`` holds counts, where the products came from, and the size and checksum of every file.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest
        self.digest: str = manifest["digest"]  # sha256 over the content of all products, in order
        self._rows = Rows(folder, "products")
        self._nouns = Rows(folder, "nouns")
        self._asins = Rows(folder, "asins")
        self._exact = Names(folder, "asin", self.asin)
        self._by_query = Postings(folder, "query")
        self._by_category = Postings(folder, "category")
        self._by_attribute = Postings(folder, "attribute")
        self._order = load_array(folder, "order.u4")
        sizes = {len(rows) for rows in (self._rows, self._nouns, self._asins, self._order)}
        if sizes != {manifest["products"]}:
            raise ValueError(f"tables of {sizes} rows for {manifest['products']} products")
        try:
            self._index = SearchIndex.load(folder / "index")
        except Exception as problem:  # whatever reading damaged arrays may raise
            raise damaged(folder / "index", str(problem)) from problem
        self._cached_product = lru_cache(CACHED_PRODUCTS)(self._product)
        self._cached_search = lru_cache(CACHED_QUERIES)(self._search)

    @classmethod
    def open(cls, folder: Path) -> Catalogue:
        """Open what ``write_catalogue`` wrote.

        Raises DataError when there is no catalogue, it has another format version, or one of its files is
        missing or damaged. In a large catalogue only file sizes are checked here, and rows when they are read
        (``verify`` checks all).
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        small = sum(file["bytes"] for file in manifest["files"].values()) <= CHECKED
        check_files(folder, manifest, contents=small)
        try:
            return cls(folder, manifest)
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, EOFError) as problem:
            raise damaged(folder, str(problem)) from problem

    def verify(self) -> None:
        """Read every file of the catalogue. Raises DataError for the first damaged one."""
        check_files(self.folder, self.manifest, contents=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_catalogue, (self.folder,)

    def __len__(self) -> int:
        return len(self._rows)

    def product(self, number: int) -> Product:
        """Product ``number``, from an LRU cache. Raises IndexError, and DataError for a damaged row."""
        return self._cached_product(number)

    def _product(self, number: int) -> Product:
        self._check(number)
        try:
            return unpack_row(self._rows[number])
        except DAMAGE as problem:
            raise damaged(self.folder / "products.bin", str(problem), number) from problem

    def search(self, query: str) -> tuple[int, ...]:
        """Numbers of at most 50 matching products, best first, from an LRU cache."""
        return self._cached_search(query)

    def _search(self, query: str) -> tuple[int, ...]:
        try:
            return tuple(int(self._order[position]) for position in self._index.search(query, RESULTS))
        except (IndexError, ValueError) as problem:
            raise damaged(self.folder / "index", str(problem)) from problem

    def asin(self, number: int) -> str:
        """The ASIN of a product without decoding the product. Raises IndexError."""
        self._check(number)
        try:
            return decode(self._asins[number])
        except ValueError as problem:
            raise damaged(self.folder / "asins.bin", str(problem), number) from problem

    def number(self, asin: str) -> int | None:
        """The product with exactly this ASIN."""
        try:
            return self._exact.find(asin)
        except (IndexError, ValueError) as problem:
            raise damaged(self.folder / "asin.row.u4", str(problem)) from problem

    def nouns(self, number: int) -> tuple[str, ...]:
        """The nouns of the product's title. Raises IndexError."""
        self._check(number)
        try:
            return tuple(check_record(list[Text], parse_json(self._nouns[number], surrogates=True)))
        except DataError as problem:
            raise damaged(self.folder / "nouns.bin", str(problem), number) from problem

    def by_query(self, query: str) -> Sequence[int]:
        """Numbers, ascending, of the products with this query; read-only, empty when there are none."""
        return self._by_query[query]

    def by_category(self, category: str) -> Sequence[int]:
        """Numbers, ascending, of the products of this category; read-only, empty when there are none."""
        return self._by_category[category]

    def by_attribute(self, attribute: str) -> Sequence[int]:
        """Numbers, ascending, of the products with this attribute; read-only, empty when there are none."""
        return self._by_attribute[attribute]

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self):
            raise IndexError(f"product {number} of {len(self)}")


DAMAGE = (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # of a damaged row

_opened: dict[Path, tuple[tuple[int, ...], Catalogue]] = {}  # folder -> (stamp of its manifest, catalogue)
_lock = threading.Lock()


def open_catalogue(folder: Path) -> Catalogue:
    """``Catalogue.open``, once per process and folder; opened again when the folder was written again."""
    folder = Path(folder).resolve()
    with _lock:
        try:
            stat = (folder / MANIFEST).stat()
        except OSError:
            _opened.pop(folder, None)
            return Catalogue.open(folder)  # raises DataError
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        entry = _opened.get(folder)
        if entry is None or entry[0] != stamp:
            entry = _opened[folder] = (stamp, Catalogue.open(folder))
        return entry[1]


def write_catalogue(
    products: Iterable[Product], folder: Path, *, source: dict[str, Any], on_done: OnDone | None = None
) -> Catalogue:
    """Write the products to ``folder`` and open it. An older catalogue there is replaced atomically.

    source: origin of the products, for the manifest; read after the last product. on_done: called with
    ("products" or "index", products done in this phase). Memory holds the ids and the index data, not the
    products. Raises DataError when there are no products, an ASIN repeats, or the folder holds anything but a
    catalogue.
    """
    folder = Path(folder)
    write_files(products, folder, source, on_done)
    for _ in range(5):
        try:
            return Catalogue.open(folder)
        except DataError:  # another process may be replacing it
            time.sleep(0.05)
    return Catalogue.open(folder)


def locate(
    data: Path | None,
    products: str | Path | None = None,
    attributes: str | Path | None = None,
    human: str | Path | None = None,
    *,
    limit: int | None = None,
    on_done: OnDone | None = None,
) -> Path:
    """The folder of the catalogue of these data, which are imported first if necessary.

    ``data``: a folder that holds a catalogue, or one with the original's files (None: the working directory),
    which are imported once to ``cache_root()``. ``products``, ``attributes``, ``human``: file names in
    ``data`` that differ from the usual ones. Of several concurrent processes one imports. Raises DataError
    when nothing is found or the files are broken, and for file names or ``limit`` together with an imported
    catalogue.
    """
    if data is not None and (data := Path(data)).is_file():
        data, products = data.parent, products or data.name
    if data is not None and is_catalogue(data):
        if products or attributes or human or limit:
            raise DataError("is an imported catalogue; give file names and limit when you import", file=data)
        return data
    files = find_files(data or Path(), products, attributes, human)
    key = {"limit": limit, "files": [None if file is None else _stamp(file) for file in files]}
    source = {
        "kind": "imported",
        "files": [None if file is None else str(file) for file in files],
        "limit": limit,
    }
    name = files[0].name.partition(".")[0]
    return _cached(
        name, key, source, lambda report: read_products(*files, limit=limit, report=report), on_done
    )


def find_files(
    folder: Path, products: str | Path | None, attributes: str | Path | None, human: str | Path | None
) -> tuple[Path, Path, Path | None]:
    """Paths of the original's three files; a file that is not named is searched under its usual names.

    The small products go with the small other files first; the full products never go with the attributes of
    the small set. Raises DataError with the names tried. Only the human file may be absent.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder", file=folder)
    first = _find(folder, products, (SMALL[0], FULL[0]), "products")
    kind = first.name.removesuffix(".gz")
    sets = (SMALL, FULL) if "_1000" in kind else (FULL,) if kind == FULL[0] else (FULL, SMALL)
    second = _find(folder, attributes, [names[1] for names in sets], "attributes")
    try:
        third = _find(folder, human, [names[2] for names in sets], "human")
    except DataError:
        if human is not None:
            raise
        third = None
    return first, second, third


def _find(folder: Path, given: str | Path | None, usual: Sequence[str], content: str) -> Path:
    names = [str(given)] if given is not None else [name + end for name in usual for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise DataError(
        f"no {content} file; looked for {', '.join(names)}. Get WebShop's data files, or name yours",
        file=folder.resolve(),
    )


def _stamp(file: Path) -> tuple[str, int, int]:
    stat = file.stat()
    return str(file), stat.st_size, stat.st_mtime_ns


def generated_folder(products: int, seed: int, on_done: OnDone | None = None) -> Path:
    """The folder of a generated catalogue, which is made first if necessary.

    The cache key holds the code that makes it: other code makes another catalogue.
    """
    code = hashlib.sha256()
    here = Path(__file__).parent
    sources = [file for folder in (here, here.parent / "search") for file in folder.iterdir()]
    for file in (*sorted(sources), here.parents[1] / "draws.py"):
        if file.suffix in (".py", ".yaml"):
            code.update(file.read_bytes())
    source = {"kind": "generated", "products": products, "seed": seed}
    return _cached(
        f"generated-{products}-{seed}",
        {**source, "code": code.hexdigest()},
        source,
        lambda report: products_from_raw(generate_catalogue(products, seed), report),
        on_done,
    )


def _cached(
    name: str,
    key: dict[str, Any],
    source: dict[str, Any],
    read: Callable[[ReadReport], Iterator[Product]],
    on_done: OnDone | None,
) -> Path:
    """The folder in the cache for this key; written by one process while the others wait for it."""
    content = json.dumps([VERSION, tagger_name(), key], sort_keys=True)
    name = f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    if _usable(folder := cache_root() / "webshop" / name):
        return folder
    root = _writable(cache_root()) / "webshop"
    root.mkdir(exist_ok=True)
    folder = root / name
    with _process_lock(root / f".{name}.lock") as locked:
        if _usable(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # broken, or absent
        if locked:  # then these were left by a killed process
            for path in root.glob(f".{name}.*.tmp"):
                shutil.rmtree(path, ignore_errors=True)
        report = new_report()
        write_files(read(report), folder, {**source, "reading": report}, on_done, replace=False)
    return folder


def _usable(folder: Path) -> bool:
    try:
        open_catalogue(folder)
    except DataError:
        return False
    return True


def _writable(root: Path) -> Path:
    """``root`` if it is writable, else a folder of this user among the temporary files, with a warning."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as problem:
        reason = problem.strerror or str(problem)
    fallback = Path(tempfile.gettempdir()) / f"repro-rl-{getpass.getuser()}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and fallback.lstat().st_uid != os.getuid():
        fallback = Path(tempfile.mkdtemp(prefix="repro-rl-"))
    warnings.warn(
        f"Cannot write to the cache folder {root} ({reason}); using {fallback}. "
        "Set REPRO_RL_CACHE to another folder.",
        RuntimeWarning,
        stacklevel=2,
    )
    return fallback


@contextmanager
def _process_lock(path: Path) -> Iterator[bool]:
    """Hold a lock between processes; yields False where the platform or file system has none."""
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
