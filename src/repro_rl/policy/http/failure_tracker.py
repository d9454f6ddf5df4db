"""When a client stops asking: the server is gone, or answers nothing."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from repro_rl.config import ApiSection
from repro_rl.errors import ApiError, clause, counted
from repro_rl.policy.http.answers import CAUSES, Answer

UNREACHED = 2  # repetitions where no connection was ever made: an address, not a server, may be wrong

ADVICE = {
    "too_long": "Take a model with a longer context.",
    "reasoning_only": "Raise api.reasoning_tokens, or turn the reasoning off with api.extra.",
    "cut": "Raise api.reasoning_tokens, which adds to the token limit.",
    "tool_call": "Start the server without tools, or set api.extra={tool_choice: none}.",
    "unreadable": "Check that api.base_url is what stands before /chat/completions.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer to this question, after all retries."""

    reason: str
    refused: bool = False  # the server will never answer this prompt: too long, or against its rules
    cause: str = "unavailable"  # one of ``answers.CAUSES``
    doubtful: bool = False  # refused in words that may be about all prompts


@dataclass(frozen=True, slots=True)
class QuestionCounts:
    """Questions so far, equal ones counted each time."""

    answered: int  # with a text
    lost: Counter[str]  # by cause


class FailureTracker:
    """Counts every result and says when it is enough. Thread-safe."""

    def __init__(self, section: ApiSection, url: str):
        self.section, self.url = section, url
        self.reached = False  # there is a server at that address
        self._answered, self._lost = 0, Counter[str]()
        self._last = ""  # the reason of the last loss
        self._row = Counter[str]()  # losses of a kind since the last answer with a text
        self._lock = threading.Lock()

    @property
    def counts(self) -> QuestionCounts:
        with self._lock:
            return QuestionCounts(self._answered, self._lost.copy())

    @property
    def answers(self) -> bool:
        """Whether there was any answer with a text."""
        return self._answered > 0

    @property
    def retries(self) -> int:
        """Repetitions of a call: ``api.retries``, fewer until there was a connection (see ``record``)."""
        wrong = self.section.give_up and not self.reached
        return min(self.section.retries, UNREACHED) if wrong else self.section.retries

    def record(self, result: Answer | Failure, new: bool = True) -> ApiError | None:
        """Count a result; the error that ends the command, when it is enough.

        Only ``new`` results can be enough. Stored answers cost nothing, and come in the order in which they
        are asked for, not in that in which the server gave them.

        ``api.give_up`` is the number of questions in a row that are left without an answer, or refused in
        unknown words. As long as no question got a text, those count as well that were answered (and paid)
        without one. A server that nobody ever reached is a wrong address: the first such question ends the
        command.
        """
        with self._lock:
            if not result.cause:
                self._answered += 1
                self._row.clear()
                return None
            kind = _kind(result)
            self._lost[result.cause] += 1
            self._last = result.reason
            if not new:
                return None
            self._row[kind] += 1
            row = self._row[kind]
        limit = self.section.give_up
        self.reached |= kind != "unanswered"
        if not limit:
            return None
        if kind == "unanswered" and (row >= limit or not self.reached):
            return self._gone(row, result.reason) if self.reached else self._nobody(result.reason)
        if kind == "doubtful" and row >= limit:
            return ApiError(
                f"{self.url} refused {counted(row, 'question')} in a row; the last: "
                f"{clause(result.reason)}. What was answered is kept; repeat the command when the reason is "
                "gone (api.give_up sets how many it takes)."
            )
        if kind == "empty" and row >= limit and not self.answers:
            return self.nothing_answered(self.counts.lost)
        return None

    def nothing_answered(self, lost: Counter[str]) -> ApiError:
        """The error of ``lost`` questions, by cause, where none got a text. It advises on the commonest."""
        common = lost.most_common()
        causes = ", ".join(f"{count} {cause} ({CAUSES.get(cause, cause)})" for cause, count in common)
        advice = ADVICE.get(common[0][0], "") if common else ""
        asked = counted(lost.total(), "question")
        return ApiError(
            f"{self.url} gave no text as {self.section.model!r} to any of {asked}: "
            f"{causes}. The last: {clause(self._last)}. {advice}".strip()
        )

    def check(self, before: QuestionCounts) -> None:
        """Raise ApiError when questions were asked since ``before`` and none got a text."""
        now = self.counts
        lost = now.lost - before.lost
        if lost and now.answered == before.answered:
            raise self.nothing_answered(lost)

    def _gone(self, row: int, reason: str) -> ApiError:
        return ApiError(
            f"{self.url} left {counted(row, 'question')} in a row without an answer, each after "
            f"{counted(self.section.retries, 'repetition')}; the last: {clause(reason)}. What was answered "
            "is kept; repeat the command when the server is back (api.give_up sets how many it takes)."
        )

    def _nobody(self, reason: str) -> ApiError:
        return ApiError(
            f"There is no connection to {self.url}: {clause(reason)}. Check api.base_url, and that the "
            "server runs; then repeat the command. What was answered is kept."
        )


def _kind(result: Answer | Failure) -> str:
    if isinstance(result, Answer):
        return "empty"
    return "doubtful" if result.doubtful else "refused" if result.refused else "unanswered"
