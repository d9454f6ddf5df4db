"""Full-text search that ranks as Lucene's BM25 does in the original (k1 0.9, b 0.4), score bits included.

A term's score in a document is ``w - w / (1 + freq * norm)`` in float32. ``w`` is the term's weight times its
count in the query. ``norm`` comes from the document's length, stored in one byte (Lucene's SmallFloat). The
sum over terms is in float64.

Source: Robertson & Zaragoza 2009; Lucene 8 ``BM25Similarity``, which has no ``k1 + 1``.
"""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from repro_rl.envs.webshop.search.analyzer import analyze
from repro_rl.envs.webshop.search.index_build import Arrays, IndexBuilder
from repro_rl.errors import DataError
from repro_rl.files import read_json, replacing, write_json

K1, B = 0.9, 0.4
VERSION = 1  # of the files; a change of the analyzer changes it too
MAX_TERMS = 1024  # different terms in one query: Lucene raises an error beyond, here the rest is ignored
MAX_QUERY = 1 << 18  # characters of a query that are read
_HEAD = "index.json"
_TERMS = "terms.bin"
_SMALL = 1 << 20  # postings of an index up to which all scores are cached in memory
_PIECE = 1 << 15  # postings scored at a time in a large index
_BLOCK = 512  # documents per block when the best of many are selected
_TYPES: dict[str, type[np.generic]] = {
    "docs": np.uint32,
    "freqs": np.uint8,
    "starts": np.uint64,
    "lengths": np.uint8,
    "term_starts": np.uint64,
    "large": np.uint64,
}


def length_of(code: int) -> int:
    """The document length, in terms, that Lucene's length byte stands for (``SmallFloat.byte4ToInt``)."""
    if code < 24:
        return code
    code -= 24
    shift = (code >> 3) - 1
    return 24 + (code if shift < 0 else ((code & 7) | 8) << shift)


_LENGTHS = np.array([length_of(code) for code in range(256)], dtype=np.int64)


class SearchIndex:
    """An immutable inverted index over N documents, T terms and P postings (term, document pairs).

    ``docs`` and ``freqs`` (P,), ordered by term and document; ``starts`` (T + 1,), where each term's postings
    start; ``lengths`` (N,), length bytes; ``terms``, the sorted terms in UTF-8 end to end, with
    ``term_starts`` (T + 1,); ``large`` (2, L), postings with a count above 255 and the counts.
    """

    def __init__(self, arrays: Arrays, terms: bytes | mmap.mmap, indexed: int, total: int):
        self._docs, self._freqs, self._large = arrays["docs"], arrays["freqs"], arrays["large"]
        self._arrays, self._terms = arrays, terms
        self._starts = arrays["starts"].data  # a memoryview reads one number several times faster
        self._term_starts = arrays["term_starts"].data
        self.documents = len(arrays["lengths"])
        self._indexed, self._total = indexed, total  # documents with at least one term, and terms of all
        self._term = lru_cache(maxsize=1 << 15)(self._look_up)

    @classmethod
    def build(cls, texts: Iterable[str], on_done: Callable[[int], None] | None = None) -> SearchIndex:
        """Index ``texts``; their order breaks ties. ``on_done(n)`` is called after each text."""
        builder = IndexBuilder()
        for count, text in enumerate(texts, 1):
            builder.add(text)
            if on_done is not None:
                on_done(count)
        return cls(*builder.build(_LENGTHS))

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``: arrays, terms, and last ``index.json`` with their sizes."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _HEAD).unlink(missing_ok=True)  # an interrupted call must not leave a readable index
        for name, array in self._arrays.items():
            with replacing(folder / f"{name}.npy") as handle:
                np.save(handle, array, allow_pickle=False)
        with replacing(folder / _TERMS) as handle:
            handle.write(self._terms)
        head = {
            "format": "repro-rl search index",
            "version": VERSION,
            "indexed": self._indexed,
            "total": self._total,
            "terms": len(self._terms),
            "arrays": {name: list(array.shape) for name, array in self._arrays.items()},
        }
        write_json(folder / _HEAD, head)

    @classmethod
    def load(cls, folder: Path) -> SearchIndex:
        """Map a saved index into memory, shared with every process that does the same.

        Raises:
            DataError: a file is missing, cut short, not an index, or of another version; names the file.
        """
        path = folder / _HEAD
        try:
            head = read_json(path, "search index")
            if head["version"] != VERSION:
                raise DataError(f"format version {head['version']}, not {VERSION}; build it again", file=path)
            shapes = head["arrays"]
            arrays = {name: _map(folder / f"{name}.npy", kind, shapes[name]) for name, kind in _TYPES.items()}
            indexed, total, size = int(head["indexed"]), int(head["total"]), int(head["terms"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError("not a search index; build it again", file=path) from error
        path = folder / _TERMS
        try:
            with open(path, "rb") as handle:
                terms = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read ({error}); build the index again", file=path) from error
        ends = (("term_starts", size), ("starts", len(arrays["docs"])))
        if len(terms) != size:
            raise DataError("cut short, or of another index; build it again", file=path)
        for name, end in ends:
            if int(arrays[name][-1]) != end:
                raise DataError("of another index; build it again", file=folder / f"{name}.npy")
        docs, documents = arrays["docs"], len(arrays["lengths"])
        # Of a small index all are read anyway; a larger one clips such a number where it is read.
        if 0 < len(docs) <= _SMALL and int(docs.max()) >= documents:
            raise DataError(
                f"names document {int(docs.max())} of {documents}; build the index again",
                file=folder / "docs.npy",
            )
        return cls(arrays, terms, indexed, total)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays and terms: the size of the files, and the most that memory holds."""
        return sum(array.nbytes for array in self._arrays.values()) + len(self._terms)

    def search(self, query: str, k: int = 50) -> list[int]:
        """The positions of the ``k`` best documents, best first, ties by position. Never raises."""
        return list(map(int, self._best(query, k)[0].tolist()))

    def scores(self, query: str, k: int = 50) -> list[tuple[int, float]]:
        """As ``search``, with the BM25 scores (float32 values, above 0)."""
        positions, scores = self._best(query, k)
        return list(zip(positions.tolist(), scores.tolist(), strict=True))

    def _best(self, query: str, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        scores = self._score(_count(query))
        if scores is None or k < 1:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if k >= len(scores):
            bound = np.float32(0)
        elif len(scores) < _BLOCK * k:
            bound = np.partition(scores, len(scores) - k)[len(scores) - k]
        else:  # the k-th best of the blocks' best scores is a lower bound of the k-th best score
            best = np.maximum.reduceat(scores, np.arange(0, len(scores), _BLOCK))
            bound = np.partition(best, len(best) - k)[len(best) - k]
        candidates = np.flatnonzero(scores >= bound if bound > 0 else scores > 0)
        values = scores[candidates]
        order = np.argsort(-values, kind="stable")[:k]
        return candidates[order], values[order]

    def _score(self, counts: dict[str, int]) -> npt.NDArray[np.float32] | None:
        """(N,) scores, or None when no term of the query is in any document."""
        terms = [(entry, count) for word, count in counts.items() if (entry := self._term(word)) is not None]
        if not terms:
            return None
        if len(self._docs) <= _SMALL:
            docs = [self._small_docs[start:end] for (start, end, _), _ in terms]
            scores = [
                self._small_scores[start:end]
                if count == 1
                else _bm25(np.float32(count) * weight, self._saturation[start:end])
                for (start, end, weight), count in terms
            ]
            summed = np.bincount(np.concatenate(docs), np.concatenate(scores), self.documents)
            total = np.asarray(summed, dtype=np.float64)
        else:
            total = np.zeros(self.documents)
            for (start, end, weight), count in terms:
                boosted = np.float32(count) * weight
                for first in range(start, end, _PIECE):
                    piece_docs, saturation = self._saturate(first, min(first + _PIECE, end))
                    sums = total.take(piece_docs, mode="clip")  # each document once: no add.at needed
                    sums += _bm25(boosted, saturation)
                    total.put(piece_docs, sums, mode="clip")
        return total.astype(np.float32)

    def _saturate(self, start: int, end: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """(documents, ``1 + freq * norm``) of the postings start..end-1."""
        docs = self._docs[start:end].astype(np.int64)
        values = self._norms.take(docs, mode="clip")
        if self._large.shape[1]:
            freqs = self._freqs[start:end].astype(np.float32)
            low, high = np.searchsorted(self._large[0], np.array((start, end), dtype=np.uint64))
            freqs[self._large[0, low:high].astype(np.int64) - start] = self._large[1, low:high]
            values *= freqs
        else:
            values *= self._freqs[start:end]
        values += np.float32(1)
        return docs, values

    def _look_up(self, word: str) -> tuple[int, int, np.float32] | None:
        """(start, end) of a term's postings, and its weight (Lucene's idf); None for an unknown term."""
        key, starts, terms = word.encode("utf-8", "surrogatepass"), self._term_starts, self._terms
        low, high = 0, len(starts) - 1
        while low < high:
            middle = (low + high) // 2
            if terms[starts[middle] : starts[middle + 1]] < key:
                low = middle + 1
            else:
                high = middle
        if low == len(starts) - 1 or terms[starts[low] : starts[low + 1]] != key:
            return None
        start, end = self._starts[low], self._starts[low + 1]
        return start, end, self._weight(end - start)

    @cached_property
    def _norms(self) -> npt.NDArray[np.float32]:
        """(N,) 1 / (k1 * (1 - b + b * length / average length)), in float32 step by step as Lucene."""
        one, k1, b = np.float32(1), np.float32(K1), np.float32(B)
        average = np.float32(self._total / max(self._indexed, 1)) or one
        lengths = _LENGTHS.astype(np.float32)
        table: npt.NDArray[np.float32] = one / (k1 * ((one - b) + b * lengths / average))
        return table[self._arrays["lengths"]]

    @cached_property
    def _small_postings(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        return self._saturate(0, len(self._docs))

    @property
    def _small_docs(self) -> npt.NDArray[np.int64]:
        return self._small_postings[0]

    @property
    def _saturation(self) -> npt.NDArray[np.float32]:
        return self._small_postings[1]

    @cached_property
    def _small_scores(self) -> npt.NDArray[np.float32]:
        """(P,) scores of terms that occur once in a query."""
        scores = np.empty(len(self._docs), dtype=np.float32)
        for start, end in pairwise(self._starts):
            scores[start:end] = _bm25(self._weight(end - start), self._saturation[start:end])
        return scores

    def _weight(self, documents: int) -> np.float32:
        """Lucene's idf of a term that occurs in ``documents`` documents."""
        return np.float32(math.log(1 + (self._indexed - documents + 0.5) / (documents + 0.5)))


def _bm25(weight: np.float32, saturation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scores: npt.NDArray[np.float32] = weight - weight / saturation
    return scores


def _count(query: str) -> dict[str, int]:
    """The terms of a query with their counts."""
    counts: dict[str, int] = {}
    for word in analyze(query[:MAX_QUERY]):
        if word in counts:
            counts[word] += 1
        elif len(counts) < MAX_TERMS:
            counts[word] = 1
    return counts


def _map(path: Path, kind: type[np.generic], shape: list[int]) -> npt.NDArray[Any]:
    """A saved array, mapped read-only. Raises DataError unless it has this type and shape."""
    try:
        array = np.load(path, mmap_mode="r" if math.prod(shape) else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot be read ({error}); build the index again", file=path) from error
    if not isinstance(array, np.ndarray) or array.dtype != kind or list(array.shape) != shape:
        raise DataError("cut short, or of another index; build it again", file=path)
    return np.asarray(array)
