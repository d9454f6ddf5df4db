"""Counts of answers: tokens, cost and losses, of a command or of a part of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NotRequired

from typing_extensions import TypedDict

from repro_rl.config import ApiPrices
from repro_rl.errors import counted
from repro_rl.files.records import Count, Text
from repro_rl.policy.http.answers import CAUSES, Answer

MANY = 0.1  # share of the questions that is worth a warning


class EarlierUsage(TypedDict):
    """What is read of the summary in a result file; those of earlier versions lack some."""

    answers_new: Count
    answers_found: Count
    prompt_tokens: Count
    completion_tokens: Count
    reasoning_tokens: NotRequired[Count]
    answers_estimated: NotRequired[Count]
    lost: NotRequired[dict[Text, Count]]
    reasons: NotRequired[dict[Text, Text]]


class Usage:
    """Answers found in the store count like new ones, once each: they were paid for.

    Not thread-safe: ``Spending`` holds its lock.
    """

    def __init__(self, prices: ApiPrices | None):
        self.prices = prices
        self.sent = self.new = self.found = self.failed = 0
        self.prompt_tokens = self.completion_tokens = self.reasoning_tokens = self.estimated = 0
        self.cut = self.without_address = 0
        self.lost: Counter[str] = Counter()  # questions without a text, by cause
        self.reasons: dict[str, str] = {}  # the first reason of each cause, in the server's words
        self._seen: set[str] = set()

    def add(self, key: str, answer: Answer, new: bool, without_address: bool = False) -> bool:
        """Count an answer; whether it was not counted before. ``new``: the server gave it now.

        A new answer was paid for, also where an equal question was: the store may have been removed since.
        ``without_address``: an earlier version stored it, and did not note which server gave it.
        """
        if key in self._seen and not new:
            return False
        self._seen.add(key)
        self.new += new
        self.found += not new
        self.without_address += without_address
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens
        self.reasoning_tokens += answer.reasoning_tokens
        self.estimated += answer.estimated
        if answer.cause:
            self._lose(answer.cause, answer.reason)
        else:
            self.cut += not answer.whole
        return True

    def fail(self, cause: str, reason: str) -> None:
        """Count a question without an answer."""
        self.failed += 1
        self._lose(cause, reason)

    def add_earlier(self, usage: EarlierUsage) -> None:
        """Count what a finished part of the command has used, by its summary."""
        self.found += usage["answers_new"] + usage["answers_found"]
        self.prompt_tokens += usage["prompt_tokens"]
        self.completion_tokens += usage["completion_tokens"]
        self.reasoning_tokens += usage.get("reasoning_tokens", 0)
        self.estimated += usage.get("answers_estimated", 0)
        self.lost.update(usage.get("lost", {}))
        self.reasons = {**usage.get("reasons", {}), **self.reasons}

    def _lose(self, cause: str, reason: str) -> None:
        self.lost[cause] += 1
        self.reasons.setdefault(cause, reason)

    def cost(self) -> float | None:
        """Of all answers used, found ones included; None without prices."""
        if self.prices is None:
            return None
        return (
            self.prompt_tokens * self.prices.prompt + self.completion_tokens * self.prices.completion
        ) / 1e6

    def summary(self) -> dict[str, Any]:
        """Counts for result files."""
        cost = self.cost()
        return {
            "calls_sent": self.sent,
            "answers_new": self.new,
            "answers_found": self.found,
            "answers_without_address": self.without_address,
            "answers_cut": self.cut,
            "failed": self.failed,
            "lost": dict(sorted(self.lost.items())),
            "reasons": dict(sorted(self.reasons.items())),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "answers_estimated": self.estimated,
            "cost": None if cost is None else round(cost, 6),
        }


def usage_line(usage: Mapping[str, Any]) -> str:
    """A summary on one line for the screen."""
    asked = f"{counted(usage['answers_new'], 'answer')} in {counted(usage['calls_sent'], 'call')}"
    parts = [
        f"{asked if usage['calls_sent'] else 'no new answers'}, {usage['answers_found']} from before",
        f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
        + (" (partly estimated)" if usage["answers_estimated"] else ""),
    ]
    if usage["cost"] is not None:
        parts.append(f"cost {usage['cost']:.4g}")
    if usage["lost"]:
        lost = ", ".join(f"{count} {cause}" for cause, count in usage["lost"].items())
        parts.append(f"{counted(sum(usage['lost'].values()), 'question')} without a text ({lost})")
    return "; ".join(parts)


def loss_lines(usage: Mapping[str, Any]) -> list[str]:
    """What was lost, a line for each cause with the server's own words, and what else must be known."""
    asked = usage["answers_new"] + usage["answers_found"] + usage["failed"]
    lines = []
    for cause, count in usage["lost"].items():
        share = f" of {counted(asked, 'question')}, {count / asked:.0%}" if asked else ""
        many = "Warning: " if asked and count / asked >= MANY else ""
        lines.append(f"{many}{cause} {count}{share} ({CAUSES.get(cause, cause)}): {usage['reasons'][cause]}")
    if usage["answers_without_address"]:
        lines.append(
            f"{counted(usage['answers_without_address'], 'answer')} stored by an earlier version, which did "
            "not note the server's address, and taken as this one's. Set api.cache to another folder to ask "
            "anew."
        )
    return lines


def usage_lines(usage: Mapping[str, Any]) -> list[str]:
    """A summary for the screen: what was used, then what was lost."""
    return [f"{usage_line(usage)}.", *loss_lines(usage)]
