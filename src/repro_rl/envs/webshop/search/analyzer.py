"""Text to index terms, exactly as Lucene 8.11 with Anserini's English analyzer.

Words by the rules of UAX #29 (StandardTokenizer, emoji included), possessive ``'s`` removed, lower case, 33
stop words removed, Porter stems. Lucene's grammar is expressed over character classes (one letter each, see
``wordbreak.yaml``); plain ASCII needs only a short form of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from repro_rl.envs.webshop.search.porter import stem
from repro_rl.files import read_yaml

LONGEST = 255  # UTF-16 units of the tokenizer's window; a longer word is split there
_STOP = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with"
)
STOP_WORDS = frozenset(_STOP.split())
# Before 3.11.5, CPython's possessive groups keep the input of an iteration that failed (its issue 106052).
_POSSESSIVE_WORKS = re.fullmatch("(?:ab?c)*+ab", "abcab") is not None


class _Possessive:
    """Writes repeated groups without backtracking: possessive (``*+``), or an equivalent (not ``native``).

    The equivalent is a lookahead, which does not backtrack either, and a reference to its match.
    """

    def __init__(self, native: bool):
        self.native, self.count = native, 0

    def __call__(self, group: str, times: str) -> str:
        if self.native:
            return f"(?:{group}){times}+"
        self.count += 1
        return f"(?=(?P<p{self.count}>(?:{group}){times}))(?P=p{self.count})"


def _ascii_words(native: bool) -> re.Pattern[str]:
    """Words of plain ASCII. A run of underscores alone matches too, and is dropped later."""
    joined = r"(?:(?<=[A-Za-z])[.':](?=[A-Za-z])|(?<=[0-9])[.,;'](?=[0-9]))\w++"
    # Nothing follows the group, so it never backtracks: greedy is the same as possessive.
    return re.compile(rf"\w++(?:{joined}){'*+' if native else '*'}", flags=re.ASCII)


_ASCII = _ascii_words(_POSSESSIVE_WORKS)
_NOT_ASCII = re.compile(r"(?<![^ ])[\x00-\x1f!-\x7f]*+[^\x00-\x7f][^ ]*+")  # space-free pieces


def _grammar(native: bool) -> re.Pattern[str]:
    """The tokenizer's grammar over class letters. Group 1 is a token; a match without it is skipped.

    Everything is possessive, so matching is linear. The alternatives are ordered so that the first match is
    the longest.
    """
    repeat = _Possessive(native)
    any_extend = "[EBZVTG]*+"
    extend = "[EBZG]*+"  # after an emoji: no variation selectors
    letter, number, kana, joint = (f"[{c}]{any_extend}" for c in ("AHL", "N", "K", "X"))
    hebrew, single, double = (f"{c}{any_extend}" for c in "HQW")

    def parts() -> str:
        numbers = repeat(f"[UDQ]{any_extend}{number}", "*")
        letters = repeat(f"[CDQ]{any_extend}{letter}", "*")
        part = f"{hebrew}{double}{hebrew}|{hebrew}{single}|{number}{numbers}|{letter}{letters}"
        return f"(?:{repeat(kana, '+')}|{repeat(part, '+')})"

    # The bound keeps adversarial text linear and changes no result: longer words go through ``_windowed``.
    more_parts = repeat(f"{repeat(joint, '+')}{parts()}", "*")
    word = f"{repeat(joint, '{0,255}')}{parts()}{more_parts}{repeat(joint, '*')}"

    modified = f"F{extend}M{extend}"
    emoji = f"(?:{modified}|[FPL]{extend}V?+|M{extend})"
    not_letter = f"(?:{modified}|[FP]{extend}V?+|M{extend})"
    joined = "(?:(?<=Z)|(?<=V)Z(?:(?=M)|Z*+(?=[FPL])))"  # must precede the next emoji of a sequence

    def more() -> str:
        return repeat(f"{joined}{emoji}", "*")

    after_letters = f"{repeat(f'L{extend}V?+{joined}', '+')}{not_letter}{more()}"  # else a word is longer
    sequence = f"(?:Z++(?=[FPL])|(?=[FPM])){emoji}{more()}"
    keycap = f"Y(?:{extend}VG|[EBZ]*+G){extend}"
    flag = f"R{any_extend}R{any_extend}"
    complex_context = "[SB]" + repeat(f"[SB]|{any_extend}(?<=[EBZVTG])", "*")
    ideograph = f"I{any_extend}"
    tokens = "|".join([after_letters, word, ideograph, sequence, complex_context, flag, keycap])
    return re.compile(f"({tokens})|Z++")


_WIDE = _grammar(_POSSESSIVE_WORKS)
_JOINTS = re.compile(f"(?<!X)X{{{LONGEST},}}")


def character_ranges() -> dict[str, str]:
    """Class letter -> its ranges of code points in hexadecimal, such as ``41-5a aa``."""
    return read_yaml(Path(__file__).with_name("wordbreak.yaml"), dict[str, str])


class _Classes(dict[int, str]):
    """Code point -> class letter, ``-`` where it has none; for ``str.translate``."""

    def __init__(self) -> None:
        super().__init__()
        table = []
        for letter, ranges in character_ranges().items():
            for item in ranges.split():
                first, _, last = item.partition("-")
                table.append((int(first, 16), int(last or first, 16), letter))
        table.sort()
        self._starts = [first for first, _, _ in table]
        self._ranges = table

    def __missing__(self, code: int) -> str:
        _, last, letter = self._ranges[max(bisect_right(self._starts, code) - 1, 0)]
        self[code] = letter = letter if self._starts[0] <= code <= last else "-"
        return letter


@lru_cache(maxsize=1)
def _classes() -> _Classes:
    return _Classes()


def tokens(text: str) -> list[str]:
    """The words of ``text``, unchanged, and runs of underscores, which ``term`` drops."""
    if text.isascii():
        words = _ASCII.findall(text)
        if len(text) > LONGEST and max(map(len, words), default=0) > LONGEST:
            return [word for piece in text.split(" ") for word in _piece(piece)]
        return words
    words, position = [], 0
    for match in _NOT_ASCII.finditer(text):  # spaces break words, so only these pieces need the full grammar
        start, end = match.span()
        if start > position:
            words += tokens(text[position:start])
        piece = match[0]
        words += _short_piece(piece) if end - start <= 64 else _piece(piece)
        position = end
    if position < len(text):
        words += tokens(text[position:])
    return words


def _piece(piece: str) -> tuple[str, ...]:
    """The words of a text without spaces."""
    classes = piece.translate(_classes())
    if len(piece) > LONGEST and _JOINTS.search(classes):
        spans = _windowed(piece, classes)
    else:
        spans = [match.span() for match in _WIDE.finditer(classes) if match.end(1) >= 0]
        if len(piece) * 2 > LONGEST and any(end - start > LONGEST // 2 for start, end in spans):
            spans = _windowed(piece, classes)
    return tuple(piece[start:end] for start, end in spans)


_short_piece = lru_cache(maxsize=1 << 15)(_piece)


def _windowed(piece: str, classes: str) -> list[tuple[int, int]]:
    """Spans of the words; no match extends over ``LONGEST`` UTF-16 units from its start."""
    units = list(accumulate((1 + (c > "\uffff") for c in piece), initial=0))
    spans, position = [], 0
    while position < len(piece):
        end = bisect_right(units, units[position] + LONGEST) - 1
        match = None if classes[position] == "-" else _WIDE.match(classes, position, end)
        if match is not None and match.end(1) >= 0:
            spans.append(match.span())
            position = match.end()
        elif (joints := _JOINTS.match(classes, position)) is not None:
            position = joints.end() - LONGEST + 1  # a window from any earlier start holds only joints
        else:
            position += 1
    return spans


@lru_cache(maxsize=1 << 17)
def term(word: str) -> str | None:
    """The index term of one of the ``tokens``; None for a stop word and for underscores alone."""
    if len(word) > 1 and word[-1] in "sS" and word[-2] in "'’＇":
        word = word[:-2]
    if word.isascii():
        word = word.lower()
        if not word.strip("_"):
            return None
    else:  # letter by letter, as Java does: no final sigma, and one i for a dotted capital I
        word = "".join(["i" if letter == "\u0130" else letter.lower() for letter in word])
    return None if word in STOP_WORDS else stem(word)


def analyze(text: str) -> list[str]:
    """The index terms of ``text``, in order, repeats included. Total: never raises."""
    return [stemmed for word in tokens(text) if (stemmed := term(word)) is not None]
