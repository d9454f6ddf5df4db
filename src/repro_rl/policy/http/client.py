"""Questions to a chat-completions server, many at once: store first, then budget, call, retries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from repro_rl.config import ApiSection
from repro_rl.errors import ApiError, ConfigError
from repro_rl.files import cache_root
from repro_rl.policy.http.answers import Answer, AnswerStore
from repro_rl.policy.http.completion import read_answer
from repro_rl.policy.http.event_stream import is_stream
from repro_rl.policy.http.failure_tracker import Failure, FailureTracker
from repro_rl.policy.http.kept_answers import KeptAnswers
from repro_rl.policy.http.request import Question, answer_keys, check_sendable, request_body
from repro_rl.policy.http.spending import Spending
from repro_rl.policy.transport import (
    PassingError,
    RefusedAll,
    RefusedPrompt,
    fetch,
    open_client,
    pause,
    read_key,
)
from repro_rl.policy.transport.refusals import STREAM_OPTIONS, NeedsStream

__all__ = ["ChatClient", "Failure", "Question"]

Wait = Callable[[float, threading.Event], object]


class _Stopped(Exception):
    """Another question ended the whole batch."""


class _Doubtful(RefusedPrompt):
    """Refused in unknown words, after other prompts were answered."""


class _Batch:
    """Shared by the threads of one ``ask``: when to stop, and why."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None

    def end(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stop.set()


class ChatClient:
    """A client of ``section.base_url``. Thread-safe; close it, or use it in a ``with`` statement.

    The API key is read from the environment here, is sent in a header and written nowhere. It is cut out of
    everything that a server says. Raises ConfigError when address, model or key are missing.
    ``wait(seconds, stop)``: how to wait between repetitions (tests replace it).
    """

    def __init__(self, section: ApiSection, *, wait: Wait = lambda seconds, stop: stop.wait(seconds)):
        if urlsplit(section.base_url).scheme not in ("http", "https"):
            raise ConfigError(
                f"api.base_url is {section.base_url!r}; give what stands before /chat/completions, "
                "such as http://localhost:8000/v1."
            )
        if section.base_url.rstrip("/").endswith("/chat/completions"):
            raise ConfigError(
                f"api.base_url is {section.base_url!r}; leave out /chat/completions, which is added to it."
            )
        if not section.model:
            raise ConfigError("api.model is empty; name the model as the server calls it.")
        self._key = read_key(section.key_env, "api.key_env")
        self.section, self._wait = section, wait
        self.url = f"{section.base_url}/chat/completions"
        self.store = AnswerStore(section.cache or cache_root() / "api")
        self.spending = Spending(section.budget, section.prices, self.store.path)
        self._http = open_client(self._key, section.timeout, section.concurrency)
        self.failures = FailureTracker(section, self.url)
        self._began = self.failures.counts  # when the part under way began
        self._stream, self._stream_options = bool(section.stream), True

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and the store of answers."""
        self._http.close()
        self.store.close()

    @contextmanager
    def part(self, kept: KeptAnswers | None = None) -> Iterator[None]:
        """Count a part of the command, such as an evaluation, also by itself; see ``Spending.part``."""
        before, self._began = self._began, self.failures.counts
        try:
            with self.spending.part(kept) as used:
                for answer in used:
                    self.failures.record(answer, new=False)
                yield
        finally:
            self._began = before

    def check(self) -> None:
        """Raise ApiError when the part under way, else the command, asked questions and none got a text."""
        self.failures.check(self._began)

    def key(self, question: Question) -> str:
        """The key that the answer is stored by: sha256 (hex) over all that decides it."""
        return answer_keys(self.section, question)[0]

    def ask(
        self, questions: Sequence[Question], on_done: Callable[[int], None] | None = None
    ) -> list[Answer | Failure]:
        """An answer, or why there is none, for each question, at most ``concurrency`` calls at once.

        Answers in the store cost nothing; new ones are in the store before this returns, also when it raises.
        ``on_done`` is told how many questions are settled. Raises ApiError when the server refuses every call
        or cannot be reached, or ``give_up`` calls in a row failed for good. Raises BudgetError when the
        budget is used up.
        """
        keys = [answer_keys(self.section, question) for question in questions]
        rows: dict[str, list[int]] = {}
        for row, (key, _) in enumerate(keys):
            rows.setdefault(key, []).append(row)
        settled: dict[str, Answer | Failure] = {}

        def settle(key: str, result: Answer | Failure) -> None:
            settled[key] = result
            if on_done is not None:
                on_done(len(rows[key]))

        missing: list[str] = []
        for key in rows:
            answer = self._find(*keys[rows[key][0]])
            if answer is None:
                missing.append(key)
                continue
            settle(key, answer)
            self.failures.record(answer, new=False)
        if missing:
            batch = _Batch()
            with ThreadPoolExecutor(min(self.section.concurrency, len(missing))) as pool:
                futures = {
                    pool.submit(self._settle, keys[rows[key][0]], questions[rows[key][0]], batch): key
                    for key in missing
                }
                try:
                    for future in as_completed(futures):
                        settle(futures[future], future.result())
                except BaseException:
                    batch.stop.set()  # what is under way is awaited and kept; nothing new begins
                    pool.shutdown(wait=True, cancel_futures=True)
                    if batch.error is not None:
                        raise batch.error from None
                    raise
        return [settled[key] for key, _ in keys]

    def _find(self, key: str, old_key: str) -> Answer | None:
        """The stored answer, also one of an earlier version, which noted no address."""
        answer = self.store.get(key)
        without_address = answer is None
        if answer is None:
            answer = self.store.get(old_key)
        if answer is not None:
            self.spending.add(key, answer, new=False, without_address=without_address)
        return answer

    def _settle(self, keys: tuple[str, str], question: Question, batch: _Batch) -> Answer | Failure:
        """What one thread does for one question. An error that concerns all ends the batch."""
        key, stop, new = keys[0], batch.stop, True
        result: Answer | Failure
        try:
            check_sendable(question)
            with self.store.lock_question(key, stop):
                answer = self._find(*keys)  # another thread or process may have asked meanwhile
                new = answer is None
                if answer is None:
                    answer = self._without_key(self._call(question, stop))
                    self.store.put(key, self.section.model, answer)
                    self.spending.add(key, answer, new=True)
                result = answer
        except (PassingError, RefusedPrompt) as error:
            refused = isinstance(error, RefusedPrompt)
            result = Failure(self._key.hide(error), refused, error.cause, isinstance(error, _Doubtful))
            self.spending.fail(result.cause, result.reason)
        except _Stopped:
            raise
        except BaseException as error:
            batch.end(error)
            raise
        if (enough := self.failures.record(result, new)) is not None:
            batch.end(enough)
            raise enough
        return result

    def _call(self, question: Question, stop: threading.Event) -> Answer:
        """One answer, repeated after errors that may pass, and as a stream where the server wants that."""
        section, attempt = self.section, 0
        while True:
            if stop.is_set():
                raise _Stopped
            body = self._body(question)
            self.spending.begin_call()
            try:
                data = fetch(self._http, self.url, body, section.timeout)
                answer = read_answer(data, body)
                self.failures.reached = True
                self._stream |= section.stream is None and is_stream(data)
                return answer
            except RefusedAll as error:
                if not self._adapt(error, body):
                    raise self._refused(error) from None
            except PassingError as error:
                self.failures.reached |= error.reached
                if error.after is not None and error.after > section.max_wait:
                    raise ApiError(
                        f"{self.url} asks to wait {error.after:.0f} s, api.max_wait is "
                        f"{section.max_wait:g} s ({self._key.hide(error)}). What was answered is kept; "
                        f"repeat the command later, or raise api.max_wait."
                    ) from None
                if attempt >= self.failures.retries:
                    raise
                self._wait(pause(attempt, section.backoff, section.max_wait, error.after), stop)
                attempt += 1

    def _body(self, question: Question) -> dict[str, Any]:
        """The JSON that is sent now."""
        body = request_body(self.section, question)
        if self._stream:
            body.setdefault("stream", True)
        if body.get("stream") and self._stream_options:
            body.setdefault(STREAM_OPTIONS, {"include_usage": True})
        return body

    def _adapt(self, error: RefusedAll, body: dict[str, Any]) -> bool:
        """Whether the next request will be one that a server with this error may take."""
        if isinstance(error, NeedsStream) and not body.get("stream") and self.section.stream is None:
            self._stream = True
            return True
        own = STREAM_OPTIONS in body and STREAM_OPTIONS not in self.section.extra
        if own and STREAM_OPTIONS in str(error):
            self._stream_options = False
            return True
        return False

    def _refused(self, error: RefusedAll) -> Exception:
        """Words that nobody knows are about this prompt where other prompts were answered."""
        self.failures.reached = True
        if not error.certain and self.failures.answers:
            return _Doubtful(str(error))
        return ApiError(
            f"{self.url} refuses to answer as {self.section.model!r}: {self._key.hide(error)}. "
            f"Check api.base_url, api.model, api.extra and the key ({self._key_source()}). "
            f"What was answered is kept; repeat the command to go on."
        )

    def _without_key(self, answer: Answer) -> Answer:
        return replace(answer, text=self._key.hide(answer.text), reason=self._key.hide(answer.reason))

    def _key_source(self) -> str:
        name = self.section.key_env
        return f"in the environment variable {name}" if name else "none is sent; api.key_env is not set"
