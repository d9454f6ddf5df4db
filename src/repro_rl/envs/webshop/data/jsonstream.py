"""Streams the values of a JSON file of any size, plain or gzip; memory holds one value.

The standard library's scanner decodes the values, so they equal those of ``json.load``, NaN, integers of any
length and lone surrogates included. Of a repeated key the last value counts.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.files import Unpacked
from repro_rl.files.json_data import check_count, check_depth
from repro_rl.files.limits import MAX_VALUES

CHUNK = 1 << 20  # bytes read at once
MOST = 8 << 20  # of a long value: what is read beyond the end of a value may hold very many small ones
EDGE = 16  # characters: a syntax error this near to the buffer's end may be an incomplete value
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")


def read_whole(path: Path) -> Any:
    """The one value of a small file. Raises DataError like the functions below."""
    with closing(_Text(path)) as text:
        if not text.peek():
            raise DataError("the file is empty", file=path)
        value = text.value(None)
        text.end()
        return value


def array_items(path: Path) -> Iterator[Any]:
    """The elements of the array that the file holds, in order.

    Raises DataError naming the file and the element (counted from 1). It does so when the file is missing,
    empty, cut off, not JSON, not UTF-8, broken gzip, or holds something else than an array.
    """
    with closing(_Text(path)) as text:
        text.opening("[", "an array of records")
        number = 0
        while text.another("]", first=number == 0, record=number):
            number += 1
            yield text.value(number)
        text.end()


def object_members(path: Path) -> Iterator[tuple[str, str]]:
    """The members of the object that the file holds, in order: (key, JSON text of the value).

    Raises DataError like ``array_items``, naming the key.
    """
    with closing(_Text(path)) as text:
        text.opening("{", "an object with one member per ASIN")
        number = 0
        key: Any = None
        while text.another("}", first=number == 0, record=key):
            number += 1
            key = text.value(f"{number} (its key)")
            if not isinstance(key, str):
                raise text.error(f"expected a key in quotes, found {type(key).__name__}", record=number)
            text.literal(":", key)
            yield key, text.raw(key)
        text.end()


class _Text:
    """The unread text of a file: a buffer that grows at its end and is consumed at its start."""

    def __init__(self, path: Path):
        self.path = path
        self.buffer = ""
        self.at = 0  # index of the first unconsumed character of the buffer
        self.before = 0  # characters consumed and dropped from the buffer
        self.decoded = 0  # bytes
        self.finished = False
        self.utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self.file = Unpacked(path)

    def close(self) -> None:
        self.file.close()

    def error(self, message: str, record: object = None, at: int | None = None) -> DataError:
        position = self.before + (self.at if at is None else at)
        return DataError(
            f"{message} (near character {position:,} of the text)", file=self.path, record=record
        )

    def more(self, record: object) -> bool:
        """Read the next chunk. Its size grows with an incomplete value, and with it what is parsed again."""
        if self.finished:
            return False
        try:
            data = self.file.read(min(MOST, max(CHUNK, len(self.buffer) - self.at)))
        except DataError as problem:
            message = str(problem).removeprefix(f"file {self.path}: ")
            raise self.error(message, record, len(self.buffer)) from problem
        self.finished = not data
        try:
            new = self.utf8.decode(data, final=self.finished)
        except UnicodeDecodeError as problem:
            position = self.decoded + problem.start
            raise DataError(f"not UTF-8 near byte {position:,}", file=self.path, record=record) from problem
        self.decoded += len(data)
        self.before += self.at
        self.buffer = self.buffer[self.at :] + new
        self.at = 0
        return not self.finished

    def peek(self, record: object = None) -> str:
        """The next character that is not blank, "" at the end of the file."""
        while True:
            blank = _BLANK.match(self.buffer, self.at)
            self.at = blank.end() if blank else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.more(record):
                return ""

    def opening(self, mark: str, expected: str) -> None:
        character = self.peek()
        if not character:
            raise DataError(f"the file is empty; expected {expected}", file=self.path)
        if character != mark:
            raise self.error(f"expected {expected}, which starts with {mark!r}; found {character!r}")
        self.at += 1

    def literal(self, mark: str, record: object) -> None:
        character = self.peek(record)
        if character != mark:
            raise self.error(f"expected {mark!r}, found {character or 'the end of the file'!r}", record)
        self.at += 1

    def another(self, closing: str, first: bool, record: object) -> bool:
        """Consume the comma or the closing bracket; returns whether another value follows."""
        after = None if first else f"after {record}"
        character = self.peek(after)
        if character == closing:
            self.at += 1
            return False
        if first:
            return True
        if character != ",":
            actual = repr(character) if character else "the end of the file: it is cut off"
            raise self.error(f"expected ',' or {closing!r}, found {actual}", after)
        self.at += 1
        return True

    def value(self, record: object) -> Any:
        """The next value, decoded."""
        return self._scan(record)[0]

    def raw(self, record: object) -> str:
        """The JSON text of the next value."""
        return self._scan(record)[1]

    def _scan(self, record: object) -> tuple[Any, str]:
        while True:
            if not self.peek(record):
                raise self.error("the file ends where a value should follow: it is cut off", record)
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
                check_depth(value)
            except json.JSONDecodeError as problem:
                left = len(self.buffer) - problem.pos
                cut = problem.msg.startswith("Unterminated string") or left <= EDGE
                if cut:
                    self.check_size(self.buffer[self.at :], record)
                    if self.more(record):
                        continue
                message = f"the file is cut off ({problem.msg})" if cut else f"not JSON: {problem.msg}"
                raise self.error(message, record, len(self.buffer) - left) from problem
            except RecursionError as problem:
                raise self.error("nested too deeply", record) from problem
            except ValueError as problem:  # such as an integer of more digits than Python converts
                raise self.error(f"not usable: {problem}", record) from problem
            left = len(self.buffer) - end
            if left < EDGE and self.more(record):
                continue  # the number may be incomplete: 1 and then .5
            end = len(self.buffer) - left
            text = self.buffer[self.at : end]
            self.check_size(text, record)
            self.at = end
            return value, text

    def check_size(self, text: str, record: object) -> None:
        """Raises DataError where the text of one value, or its beginning, is beyond a limit."""
        if len(text) > MAX_VALUES:  # each takes a character at least
            try:
                check_count(text)
            except ValueError as problem:
                raise self.error(f"one value {problem}", record) from problem

    def end(self) -> None:
        character = self.peek()
        if character:
            raise self.error(f"the value is complete, but {character!r} follows")
