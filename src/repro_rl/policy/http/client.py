"""Questions to a chat-completions server, many at once: store first, then budget, call, retries."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from repro_rl.config import ApiSection
from repro_rl.errors import ApiError, ConfigError
from repro_rl.files import cache_root
from repro_rl.policy.http.answers import Answer, AnswerStore
from repro_rl.policy.http.exchange import (
    PassingError,
    RefusedAll,
    RefusedPrompt,
    exchange,
    open_client,
    pause,
    read_key,
)
from repro_rl.policy.http.spending import Spending
from repro_rl.text.guided import GuidedText

HIDDEN = "[key]"
Wait = Callable[[float, threading.Event], object]


@dataclass(frozen=True, slots=True)
class Question:
    """One chat completion to ask for. Equal questions are asked once."""

    messages: tuple[tuple[str, str], ...]  # (role, content)
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    sample: int = 0  # tells repeated samples of one prompt apart; 0 <= sample < 2**64
    form: GuidedText | None = None  # what is given of the answer; None: nothing


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer to this question, after all retries."""

    reason: str
    refused: bool = False  # the server will never answer this prompt: too long, or against its rules


class _Stopped(Exception):
    """Another question ended the whole batch."""


class _Batch:
    """Shared by the threads of one ``ask``: when to stop, and why."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.error: BaseException | None = None

    def end(self, error: BaseException) -> None:
        self.error = self.error or error
        self.stop.set()


def form_fields(form: GuidedText, how: str) -> dict[str, Any]:
    """The fields of a request that hold its answer to ``form``; ``how``: see ``api.guided``.

    Raises ConfigError for "off".
    """
    match how:
        case "json_schema":
            schema = {"name": "progress", "strict": True, "schema": form.schema()}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "structured_outputs":
            return {"structured_outputs": {"regex": form.regex()}}
        case "guided_regex":
            return {"guided_regex": form.regex()}
        case "grammar":
            return {"grammar": form.grammar()}
    raise ConfigError(
        "prompt.reflect_form is 'guided', but api.guided is 'off': only some servers can hold an answer to a "
        "form. Set api.guided to it (json_schema, structured_outputs, guided_regex or grammar), "
        "or prompt.reflect_form=free."
    )


class ChatClient:
    """A client of ``settings.base_url``. Thread-safe; close it, or use it in a ``with`` statement.

    The API key is read from the environment here, is sent in a header and written nowhere; it is cut out of
    everything that a server says. Raises ConfigError when address, model or key are missing.
    ``wait(seconds, stop)``: how to wait between repetitions (tests replace it).
    """

    def __init__(self, settings: ApiSection, *, wait: Wait = lambda seconds, stop: stop.wait(seconds)):
        if urlsplit(settings.base_url).scheme not in ("http", "https"):
            raise ConfigError(
                f"api.base_url is {settings.base_url!r}; give what stands before /chat/completions, "
                "such as http://localhost:8000/v1."
            )
        if not settings.model:
            raise ConfigError("api.model is empty; name the model as the server calls it.")
        self._key = read_key(settings.key_env, "api.key_env")
        self.settings, self._wait = settings, wait
        self.url = f"{settings.base_url}/chat/completions"
        self.store = AnswerStore(settings.cache or cache_root() / "api")
        self.spending = Spending(settings.budget, settings.prices, self.store.path)
        self._http = open_client(self._key, settings.timeout, settings.concurrency)
        self._unanswered_in_a_row, self._reached = 0, False
        self._lock = threading.Lock()

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self.store.close()

    def body(self, question: Question) -> dict[str, Any]:
        """The JSON that is sent."""
        settings = self.settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": role, "content": content} for role, content in question.messages],
            "temperature": question.temperature,
            settings.limit_field: question.max_tokens + settings.reasoning_tokens,
        }
        if question.top_p != 1.0:
            body["top_p"] = question.top_p
        if settings.send_seed:
            body["seed"] = question.sample % (1 << 31)  # servers want a small positive integer
        if question.form is not None:
            body |= form_fields(question.form, settings.guided)
        body |= settings.extra
        return {name: value for name, value in body.items() if value is not None}

    def key(self, question: Question) -> str:
        """sha256 (hex) over everything that decides the answer; the address does not."""
        body = self.body(question)
        greedy = body.get("temperature") == 0 and not self.settings.send_seed
        # Greedy samples of one prompt are one answer: asking again would only cost.
        content = {"body": body, "sample": 0 if greedy else question.sample}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def ask(
        self, questions: Sequence[Question], on_done: Callable[[int], None] | None = None
    ) -> list[Answer | Failure]:
        """An answer, or why there is none, for each question, at most ``concurrency`` calls at once.

        Answers in the store cost nothing; new ones are in the store before this returns, also when it raises.
        ``on_done`` is told how many questions are settled. Raises ApiError when the server refuses every
        call or ``give_up`` calls in a row failed for good, BudgetError when the budget is used up.
        """
        keys = [self.key(question) for question in questions]
        rows: dict[str, list[int]] = {}
        for row, key in enumerate(keys):
            rows.setdefault(key, []).append(row)
        settled: dict[str, Answer | Failure] = {}

        def settle(key: str, result: Answer | Failure) -> None:
            settled[key] = result
            if on_done is not None:
                on_done(len(rows[key]))

        missing: list[str] = []
        for key in rows:
            answer = self.store.get(key)
            if answer is None:
                missing.append(key)
            else:
                self.spending.add(key, answer, new=False)
                settle(key, answer)
        if missing:
            batch = _Batch()
            with ThreadPoolExecutor(min(self.settings.concurrency, len(missing))) as pool:
                futures = {
                    pool.submit(self._settle, key, questions[rows[key][0]], batch): key for key in missing
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
        return [settled[key] for key in keys]

    def _settle(self, key: str, question: Question, batch: _Batch) -> Answer | Failure:
        """What one thread does for one question. An error that concerns all ends the batch."""
        stop = batch.stop
        try:
            with self.store.lock_question(key, stop):
                answer = self.store.get(key)  # another process may have asked meanwhile
                if answer is not None:
                    self.spending.add(key, answer, new=False)
                    return answer
                answer = self._call(question, stop)
                if self._key and self._key in answer.text:
                    answer = replace(answer, text=self._hide(answer.text))
                self.store.put(key, self.settings.model, answer)
                self.spending.add(key, answer, new=True)
        except (PassingError, RefusedPrompt) as error:
            return self._unanswered(error, batch)
        except _Stopped:
            raise
        except BaseException as error:
            batch.end(error)
            raise
        with self._lock:
            self._unanswered_in_a_row = 0
        return answer

    def _call(self, question: Question, stop: threading.Event) -> Answer:
        """One answer, repeated after errors that may pass."""
        settings, body = self.settings, self.body(question)
        attempt = 0
        while True:
            if stop.is_set():
                raise _Stopped
            self.spending.begin_call()
            try:
                answer = exchange(self._http, self.url, body, settings.timeout)
                self._reached = True
                return answer
            except RefusedAll as error:
                raise ApiError(
                    f"{self.url} refuses to answer as {settings.model!r}: {self._hide(str(error))}. "
                    f"Check api.base_url, api.model, api.extra and the key ({self._key_source()}). "
                    f"What was answered is kept; repeat the command to go on."
                ) from None
            except PassingError as error:
                self._reached |= error.reached
                if error.after is not None and error.after > settings.max_wait:
                    raise ApiError(
                        f"{self.url} asks to wait {error.after:.0f} s, api.max_wait is "
                        f"{settings.max_wait:g} s ({self._hide(str(error))}). What was answered is kept; "
                        f"repeat the command later, or raise api.max_wait."
                    ) from None
                if attempt >= settings.retries:
                    raise
                self._wait(pause(attempt, settings.backoff, settings.max_wait, error.after), stop)
                attempt += 1

    def _unanswered(self, error: Exception, batch: _Batch) -> Failure:
        """A question that stays without an answer; too many in a row mean that the server is gone.

        A server that nobody ever reached is a wrong address: the first such question ends the batch.
        """
        self.spending.fail()
        failure = Failure(self._hide(str(error)), refused=isinstance(error, RefusedPrompt))
        if failure.refused:
            self._reached = True
            return failure
        with self._lock:
            self._unanswered_in_a_row += 1
            count = self._unanswered_in_a_row
        if self.settings.give_up and (count >= self.settings.give_up or not self._reached):
            unreachable = ApiError(
                f"{self.url} left {count} questions in a row without an answer, each after "
                f"{self.settings.retries} repetitions; the last: {failure.reason}. What was answered is "
                f"kept; repeat the command when the server is back (api.give_up sets how many it takes)."
            )
            batch.end(unreachable)
            raise unreachable
        return failure

    def _hide(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text

    def _key_source(self) -> str:
        name = self.settings.key_env
        return f"in the environment variable {name}" if name else "none is sent; api.key_env is not set"
