"""The durable store of answers: what was paid for is on disk before anyone uses it.

SQLite (write-ahead log, synced at every commit) in one file. It survives a kill at any moment, and several
processes and threads may share it. While one asks a question, it holds a lock on that question, which the
system takes back when the process dies. Answers that arrive while another one is being synced share the next
commit, so none waits for more than two syncs.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from repro_rl.errors import DataError
from repro_rl.files import check_record, parse_json
from repro_rl.files.records import Count, Flag, Text
from repro_rl.policy.http.question_locks import POLL, QuestionLocks

FILE, LOCKS = "answers.sqlite", "answers.locks"
LOCK_TIMEOUT = 60.0  # seconds for another process to let go of the file
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

# Why a question has no text as its answer, and what it means.
CAUSES = {
    "too_long": "the prompt is too long for the model",
    "filtered": "stopped by a content filter",
    "refused": "a refusal",
    "tool_call": "a tool call, no text",
    "reasoning_only": "only reasoning, no text",
    "empty": "an empty text",
    "cut": "cut off before its text",
    "unreadable": "not a chat completion",
    "unavailable": "no answer from the server",
    "unsendable": "the prompt cannot be sent",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer, and the tokens that the server counted for it."""

    text: Text  # without the reasoning that servers return apart; "" when there was none
    finish: Text  # "stop", "length", ... as the server reports it; "length": the limit cut it off
    prompt_tokens: Count
    completion_tokens: Count  # reasoning included
    reasoning_tokens: Count = 0
    estimated: Flag = False  # the server counted nothing: about four characters a token
    cause: Text = ""  # why there is no text, one of CAUSES; "" where there is one
    reason: Text = ""  # the same in the server's words

    @property
    def whole(self) -> bool:
        """Neither the token limit nor a filter cut it off."""
        return self.finish not in ("length", "content_filter")

    def without_text(self, cause: str, reason: str) -> Answer:
        """This answer, which has no text for that cause."""
        return replace(self, cause=cause, reason=reason)


def read_record(text: str) -> Answer:
    """A stored answer. Raises DataError for anything else.

    Those of earlier versions have no cause; where there is no text, ``finish`` tells it.
    """
    # Half a character of a broken text is stored as it came.
    answer = check_record(Answer, parse_json(text, surrogates=True))
    if answer.text.strip() or answer.cause:
        return answer
    cause = {"content_filter": "filtered", "refusal": "refused", "tool_calls": "tool_call"}.get(answer.finish)
    if cause is None:
        cause = (
            "reasoning_only" if answer.reasoning_tokens else "cut" if answer.finish == "length" else "empty"
        )
    return answer.without_text(cause, f"finish_reason {answer.finish}")


@dataclass(slots=True)
class _Waiting:
    """An answer that is to be stored."""

    row: tuple[str, str, str, str]  # key, model, answer, time
    done: bool = False
    error: Exception | None = None


class AnswerStore:
    """Answers by key in ``folder``. Raises DataError naming the file when it cannot be used.

    Thread-safe. Within a process use one store for a folder: locks on questions are the process's.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._waiting_lock = threading.Lock()
        self._questions = QuestionLocks()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                self.path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._prepare()
            # Never closed before the store is: closing any handle of the file would drop all its locks.
            self._locks = open(folder / LOCKS, "ab")  # noqa: SIM115
        except (sqlite3.Error, OSError) as error:
            raise self._broken(error) from error

    def _prepare(self) -> None:
        """Tables and settings. Switching a new file to the log does not wait for others that do the same."""
        until = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                # A file system without shared memory keeps its own mode.
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute(
                    "CREATE TABLE IF NOT EXISTS answers "
                    "(key TEXT PRIMARY KEY, model TEXT NOT NULL, answer TEXT NOT NULL, written TEXT NOT NULL)"
                )
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > until:
                    raise
                time.sleep(POLL / 10)

    def close(self) -> None:
        """Close the file and drop all locks."""
        self._db.close()
        self._locks.close()

    def get(self, key: str) -> Answer | None:
        """The stored answer to the question ``key``. Raises DataError for a broken record."""
        try:
            with self._lock:
                row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from error
        if row is None:
            return None
        try:
            return read_record(row[0])
        except DataError as error:
            raise DataError(f"not an answer ({error})", file=self.path, record=key) from error

    def put(self, key: str, model: str, answer: Answer) -> None:
        """Store ``answer``; on disk when this returns. A key that is there already stays as it is."""
        row = (
            key,
            model.encode(errors="replace").decode(),
            json.dumps(asdict(answer)),  # ASCII, so that half a character of a broken text is no problem
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        mine = _Waiting(row)
        with self._waiting_lock:
            self._waiting.append(mine)
        with self._lock:  # the first to get here writes for all that wait
            if not mine.done:
                self._write_waiting()
        if mine.error is not None:
            raise self._broken(mine.error) from mine.error

    def _write_waiting(self) -> None:
        """Store all waiting answers in one commit, which returns when they are on disk."""
        with self._waiting_lock:
            batch, self._waiting = self._waiting, []
        error: Exception | None = None
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", [waiting.row for waiting in batch]
            )
            self._db.execute("COMMIT")
        except Exception as problem:  # each of those that wait must hear of it
            error = problem
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
        for waiting in batch:
            waiting.error, waiting.done = error, True

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    @contextlib.contextmanager
    def lock_question(self, key: str, stop: threading.Event) -> Iterator[None]:
        """Lock the question ``key`` (a hex digest) against other threads and processes.

        Waits while one of them has it. Returns without the lock once ``stop`` is set.
        """
        with self._questions.lock(key, stop), self._lock_in_file(key, stop):
            yield

    @contextlib.contextmanager
    def _lock_in_file(self, key: str, stop: threading.Event) -> Iterator[None]:
        """The part of ``lock_question`` against other processes. The system knows no threads there."""
        try:
            import fcntl
        except ImportError:  # Windows: two processes at the same moment may ask the same twice
            yield
            return
        offset = int(key[:12], 16)  # one byte of a file that stays empty
        locked = False
        while not stop.is_set():
            try:
                fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except (BlockingIOError, PermissionError):
                stop.wait(POLL)
            except OSError:  # a file system without locks
                break
            else:
                locked = True
                break
        try:
            yield
        finally:
            if locked:
                fcntl.lockf(self._locks, fcntl.LOCK_UN, 1, offset)

    def _broken(self, error: Exception) -> DataError:
        return DataError(
            f"the store of answers cannot be used ({error}); move it away, or choose another folder with "
            "api.cache",
            file=self.path,
        )
