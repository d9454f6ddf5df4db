"""Making prompts fit their token limit, the least useful part first (our decision; the papers drop history).

A forward prompt gives up, in this order: demonstrations, the longest first; past observations and actions,
the oldest first; the middle of the current observation. Instructions, task and admissible actions always
stay. A reflection prompt takes the short form of observations where there is one, then shortens all of them
evenly. Words are only cut in full style: the word tokenizer of compact prompts does not know the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from repro_rl.policy.base import Policy
from repro_rl.text.prompts import PromptBuilder

Shortened = Literal["", "history", "observation"]

MARK = "[... left out ...]"
LEAST = 60  # characters of an observation that are always kept
BOUNDARIES = ("\n", " [SEP] ", ". ", ", ", " ")  # where to cut, the best first
SLACK = 3  # a better boundary may cost one part in so many


class Fitted(NamedTuple):
    """A prompt that fits, and what it lost: "observation" includes the history."""

    text: str
    shortened: Shortened


def shorten(text: str, room: int) -> str:
    """``text`` in at most ``max(room, LEAST)`` characters: two thirds from its head, one from its tail.

    Cut at a line, an item, a sentence or a word, whichever is near; MARK stands where something is missing.
    """
    room = max(room, LEAST)
    if len(text) <= room:
        return text
    space = room - len(MARK) - 2
    head = _head(text, 2 * space // 3)
    tail = _tail(text, space - len(head))
    gap = "\n" if "\n" in text else " "
    return f"{head.rstrip()}{gap}{MARK}{gap}{tail.lstrip()}"


def _head(text: str, room: int) -> str:
    for sign in BOUNDARIES:
        place = text.rfind(sign, room - room // SLACK, room)
        if place > 0:
            return text[: place + len(sign.rstrip())] if sign != " [SEP] " else text[:place]
    return text[:room]


def _tail(text: str, room: int) -> str:
    start = len(text) - room
    for sign in BOUNDARIES:
        place = text.find(sign, start, start + room // SLACK + len(sign))
        if place > 0:
            return text[place + len(sign) :]
    return text[start:]


def largest_room(longest: int, fits: Callable[[int], str | None]) -> str | None:
    """What ``fits`` gives for the largest room from LEAST to ``longest`` that a bisection finds to fit.

    ``fits(room)`` is the text where it fits, else None; None when not even LEAST does.
    """
    best = fits(LEAST)
    low, high = LEAST, max(longest, LEAST)
    while best is not None and high - low > 1:
        middle = (low + high) // 2
        text = fits(middle)
        if text is None:
            high = middle
        else:
            low, best = middle, text
    return best


def fitting_prompt(
    policy: Policy,
    prompts: PromptBuilder,
    limit: int,
    shown: list[str],
    history: Sequence[tuple[str, str]],
    *,
    observation: str,
    **rest: Any,
) -> Fitted | None:
    """The forward prompt, of at most ``limit`` tokens: None when even the shortest is longer.

    ``shown``: texts of demonstrations, not empty; those that do not fit are taken off its front, but the
    last. ``rest``: the other arguments of ``PromptBuilder.forward``.
    """
    kept = list(history)[-prompts.history :] if prompts.history else []
    shortened: Shortened = ""

    def attempt(seen: str) -> str | None:
        text = prompts.forward(history=kept, demonstrations=shown[0], observation=seen, **rest)
        return text if len(policy.encode(text)) <= limit else None

    while True:
        text = attempt(observation)
        if text is not None:
            return Fitted(text, shortened)
        if len(shown) > 1:
            del shown[0]
        elif kept:
            kept, shortened = kept[1:], "history"
        else:
            break
    if prompts.fmt.style == "compact" or len(observation) <= LEAST:
        return None
    text = largest_room(len(observation), lambda room: attempt(shorten(observation, room)))
    return None if text is None else Fitted(text, "observation")
