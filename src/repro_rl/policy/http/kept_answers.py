"""The answers that an unfinished piece of work has used, so that it counts them when it is continued.

Its finished episodes are not played again, so nothing else would count what they cost. The store of answers
could not tell: it serves other commands too, and may be another one by then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.errors import DataError
from repro_rl.files import UnfinishedRows, check_record
from repro_rl.files.records import Count, Flag, Text
from repro_rl.policy.http.answers import Answer


class _Row(TypedDict):
    """An answer without its text."""

    answer: Text  # its key
    finish: Text
    prompt_tokens: Count
    completion_tokens: Count
    reasoning_tokens: Count
    estimated: Flag
    cause: Text
    reason: Text
    without_address: Flag


class KeptAnswers:
    """Answers in the file ``path``; ``key``: of the work. Not thread-safe: ``Spending`` holds its lock."""

    def __init__(self, path: Path, key: str):
        self._rows = UnfinishedRows(path, key)

    def open(self) -> list[tuple[str, Answer, bool]]:
        """Begin to write; what is there: keys, answers with "" as their text, whether no address was noted.

        Raises OSError where nothing can be written, and DataError naming a broken row.
        """
        used = []
        for number, row in enumerate(self._rows.rows(), start=1):
            try:
                check_record(_Row, row)
                used.append(_restored(row))
            except (DataError, TypeError) as error:
                raise DataError(
                    f"not an answer as unfinished work counts it ({error}); delete the file, and what was "
                    "used so far does not count",
                    file=self._rows.path,
                    record=f"row {number} of this work",
                ) from error
        self._rows.open()
        return used

    def add(self, key: str, answer: Answer, without_address: bool) -> None:
        """Keep that ``answer`` was used. Raises OSError naming the file."""
        self._rows.add(
            {
                "answer": key,
                "finish": _writable(answer.finish),
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "reasoning_tokens": answer.reasoning_tokens,
                "estimated": answer.estimated,
                "cause": answer.cause,
                "reason": _writable(answer.reason),
                "without_address": without_address,
            }
        )

    def close(self) -> None:
        """Stop writing; what was written stays for the next command."""
        self._rows.close()

    def remove(self) -> None:
        """The work is finished: its result says what was used."""
        self._rows.remove()


def _writable(text: str) -> str:
    """A server's words may hold half a character, which no file can."""
    return text.encode(errors="replace").decode()


def _restored(row: dict[str, Any]) -> tuple[str, Answer, bool]:
    fields = dict(row)
    key, without_address = fields.pop("answer"), fields.pop("without_address")
    return key, Answer("", **fields), without_address
