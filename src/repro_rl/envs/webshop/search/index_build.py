"""Builds the arrays of a search index from a stream of texts, in memory proportional to the postings.

Term numbers of some million words at a time are sorted into runs of (term, document); ``build`` merges the
runs by term. Memory: five bytes per posting while texts are added, twice that during the merge.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from repro_rl.envs.webshop.search.analyzer import term, tokens

CHUNK = 1 << 22  # words sorted at a time
_WORDS = 1 << 21  # different words in the cache

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(slots=True)
class _Run:
    """Postings of one chunk, ordered by (term number, document)."""

    terms: npt.NDArray[np.uint32]  # (t,) the term numbers that occur
    counts: npt.NDArray[np.int64]  # (t,) postings of each
    docs: npt.NDArray[np.uint32]  # (p,) document of each posting
    freqs: npt.NDArray[np.uint8]  # (p,) occurrences in it, capped at 255
    large: npt.NDArray[np.int64]  # (l,) indices of postings above the cap
    large_freqs: npt.NDArray[np.int64]  # (l,) their occurrences


def length_codes(lengths: npt.NDArray[np.int64], decoded: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The byte for each length: the last one whose ``decoded`` length (ascending) is not above it."""
    codes: npt.NDArray[np.uint8] = (np.searchsorted(decoded, lengths, side="right") - 1).astype(np.uint8)
    return codes


class IndexBuilder:
    """Collects texts one by one; ``build`` returns the arrays and the terms."""

    def __init__(self) -> None:
        self._words: dict[str, int] = {}  # word as written -> term number, -1 for none
        self._terms: dict[str, int] = {}
        self._chunk = array("I")
        self._lengths = array("I")
        self._first = 0  # first document of the chunk
        self._runs: list[_Run] = []

    def add(self, text: str) -> None:
        """Add the next document."""
        words = tokens(text)
        cached = list(map(self._words.get, words))
        if None in cached:
            cached = [self._number(word) for word in words]
        numbers = [number for number in cached if number is not None and number >= 0]
        self._lengths.append(len(numbers))
        self._chunk.extend(numbers)
        if len(self._chunk) >= CHUNK:
            self._flush()

    def _number(self, word: str) -> int:
        number = self._words.get(word)
        if number is None:
            stemmed = term(word)
            number = -1 if stemmed is None else self._terms.setdefault(stemmed, len(self._terms))
            if len(self._words) >= _WORDS:
                self._words.clear()
            self._words[word] = number
        return number

    def _flush(self) -> None:
        end = len(self._lengths)
        lengths = np.array(self._lengths[self._first : end], dtype=np.int64)
        keys = np.array(self._chunk, dtype=np.uint64) << np.uint64(32)
        keys |= np.repeat(np.arange(self._first, end, dtype=np.uint64), lengths)
        keys.sort()
        starts = np.flatnonzero(np.diff(keys, prepend=~keys[:1]))  # first occurrence of each (term, document)
        freqs = np.diff(starts, append=len(keys))
        keys = keys[starts]
        terms, counts = np.unique((keys >> np.uint64(32)).astype(np.uint32), return_counts=True)
        large = np.flatnonzero(freqs > 255)
        docs = keys.astype(np.uint32)  # the lower half
        small = np.minimum(freqs, 255).astype(np.uint8)
        self._runs.append(_Run(terms, counts.astype(np.int64), docs, small, large, freqs[large]))
        self._chunk, self._first = array("I"), end

    def build(self, decoded: npt.NDArray[np.int64]) -> tuple[Arrays, bytes, int, int]:
        """(arrays, terms, documents with a term, terms of all documents). Call once.

        ``decoded`` [256]: the document length that each length byte stands for, ascending. The arrays, for D
        documents, T terms and P postings ordered by (term, document):

        - "docs", "freqs" [P]: the document, and the term's count in it, capped at 255
        - "starts" [T + 1]: where the postings of each term begin
        - "lengths" [D]: length byte of each document
        - "term_starts" [T + 1]: where the UTF-8 bytes of each term begin in ``terms``
        - "large" [2, L]: indices of the postings above the cap, ascending, and their counts
        """
        if len(self._chunk):
            self._flush()
        self._words.clear()
        keys = [word.encode() for word in self._terms]
        self._terms.clear()
        order = sorted(range(len(keys)), key=keys.__getitem__)
        rank = np.empty(len(keys), dtype=np.int64)
        rank[order] = np.arange(len(keys))
        sizes = np.zeros(len(keys), dtype=np.int64)
        for run in self._runs:
            sizes[rank[run.terms]] += run.counts
        starts = np.concatenate([[0], np.cumsum(sizes)])
        docs = np.empty(starts[-1], dtype=np.uint32)
        freqs = np.empty(starts[-1], dtype=np.uint8)
        large: list[npt.NDArray[np.int64]] = [np.empty((2, 0), dtype=np.int64)]
        free = starts[:-1].copy()
        self._runs.reverse()
        while self._runs:
            run = self._runs.pop()  # frees its memory after this iteration
            ranks = rank[run.terms]
            shift = free[ranks] - (np.cumsum(run.counts) - run.counts)
            indices = np.repeat(shift, run.counts) + np.arange(len(run.docs))
            docs[indices], freqs[indices] = run.docs, run.freqs
            large.append(np.stack([indices[run.large], run.large_freqs]))
            free[ranks] += run.counts
        exceptions = np.concatenate(large, axis=1)
        lengths = np.array(self._lengths, dtype=np.int64)
        ends = np.cumsum([0, *(len(keys[i]) for i in order)])
        arrays: Arrays = {
            "docs": docs,
            "freqs": freqs,
            "starts": starts.astype(np.uint64),
            "lengths": length_codes(lengths, decoded),
            "term_starts": ends.astype(np.uint64),
            "large": exceptions[:, np.argsort(exceptions[0])].astype(np.uint64),
        }
        terms = b"".join([keys[i] for i in order])
        return arrays, terms, int(np.count_nonzero(lengths)), int(lengths.sum())
