"""Where the budget of a command ends, and what each of its parts has used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from repro_rl.config import ApiBudget, ApiPrices
from repro_rl.errors import BudgetError
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.kept_answers import KeptAnswers
from repro_rl.policy.http.usage import EarlierUsage, Usage


class Spending:
    """Counts of one command, in ``whole``, and of the part of it that is under way. Thread-safe.

    The same command repeated stops at the same question, and a larger budget lets it go on. For that, what is
    found in the store counts, as does what finished parts and kept episodes have used. Answers in the store
    are never refused.
    """

    def __init__(self, budget: ApiBudget, prices: ApiPrices | None, store: object):
        self.budget, self.store = budget, store
        self.whole = self._part = Usage(prices)
        self._kept: KeptAnswers | None = None
        self._earlier: set[str] = set()  # names of finished parts that are counted
        self._lock = threading.Lock()

    def begin_call(self) -> None:
        """Count a call that is about to be sent.

        Raises BudgetError when the budget does not allow it. Tokens are known afterwards, so their limit is
        overrun by at most the calls that are under way.
        """
        budget, whole = self.budget, self.whole
        with self._lock:
            for name, used, limit in (
                ("calls", whole.sent + whole.found, budget.calls),
                ("tokens", whole.prompt_tokens + whole.completion_tokens, budget.tokens),
                ("money", whole.cost(), budget.money),
            ):
                if limit is not None and used is not None and used >= limit:
                    raise BudgetError(
                        f"The budget of {limit:g} {name} is used up ({used:g} used). Every answer so "
                        f"far is kept in {self.store}. Repeat the same command with a larger "
                        f"api.budget.{name} to go on."
                    )
            for usage in self._counts():
                usage.sent += 1

    def add(self, key: str, answer: Answer, new: bool, without_address: bool = False) -> None:
        """Count an answer; see ``Usage.add``. Raises OSError where a part cannot keep it."""
        with self._lock:
            counted = [usage.add(key, answer, new, without_address) for usage in self._counts()]
            if self._kept is not None and counted[-1]:
                self._kept.add(key, answer, without_address)

    def fail(self, cause: str, reason: str) -> None:
        """Count a question without an answer."""
        with self._lock:
            for usage in self._counts():
                usage.fail(cause, reason)

    def add_earlier(self, name: str, usage: EarlierUsage) -> None:
        """Count what the finished part ``name`` of this command has used, once."""
        with self._lock:
            if name not in self._earlier:
                self._earlier.add(name)
                self.whole.add_earlier(usage)

    @contextmanager
    def part(self, kept: KeptAnswers | None) -> Iterator[list[Answer]]:
        """Count a part of the command, such as an evaluation, also by itself; one at a time.

        Gives the answers in ``kept``, which the part had used when it was interrupted: they count as found.
        ``kept`` gets the others as they come, and is removed when the block ends without an error. Raises
        OSError where it cannot be written, DataError for a broken file.
        """
        began = Usage(self.whole.prices)
        used = [] if kept is None else kept.open()
        try:
            with self._lock:
                self._part, self._kept = began, kept
                for key, answer, without_address in used:
                    for usage in self._counts():
                        usage.add(key, answer, False, without_address)
            yield [answer for _, answer, _ in used]
        except BaseException:
            if kept is not None:
                kept.close()
            raise
        else:
            if kept is not None:
                kept.remove()
        finally:
            with self._lock:
                self._part, self._kept = self.whole, None

    def _counts(self) -> list[Usage]:
        """The whole, and last the part that is under way."""
        return [self.whole] if self._part is self.whole else [self.whole, self._part]

    def summary(self) -> dict[str, Any]:
        """Counts of the whole command."""
        with self._lock:
            return self.whole.summary()

    def part_summary(self) -> dict[str, Any]:
        """Counts of the part under way; of the whole where there is none."""
        with self._lock:
            return self._part.summary()
