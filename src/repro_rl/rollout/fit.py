"""Making prompts fit their token limit, the least useful part first (decision D9).

A step's prompt gives up, in this order: demonstrations, the longest first; past observations and actions,
the oldest first; the middle of the current observation. Instructions, task and admissible actions always
stay. A reflection prompt takes the short form of observations where there is one, then shortens all of them
evenly. Words are cut in full style only: the word tokenizer of compact prompts does not know MARK.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from repro_rl.policy.base import PromptText
from repro_rl.text.prompts import PromptBuilder, StepInputs

Shortened = Literal["", "history", "observation"]

MARK = "[... left out ...]"
MIN_OBSERVATION = 60  # characters of an observation that are always kept
BOUNDARIES = ("\n", " [SEP] ", ". ", ", ", " ")  # where to cut, the best first
SLACK = 3  # a better boundary may cost at most 1 / SLACK of the part


class FittedPrompt(NamedTuple):
    """A prompt that fits, and what it lost: "observation" includes the history."""

    text: str
    shortened: Shortened


def shorten(text: str, characters: int) -> str:
    """``text`` in at most ``max(characters, MIN_OBSERVATION)``: two thirds from its head, one from its tail.

    Cut at a line, an item, a sentence or a word, whichever is near; MARK stands where something is missing.
    """
    characters = max(characters, MIN_OBSERVATION)
    if len(text) <= characters:
        return text
    space = characters - len(MARK) - 2
    head = _head(text, 2 * space // 3)
    tail = _tail(text, space - len(head))
    gap = "\n" if "\n" in text else " "
    return f"{head.rstrip()}{gap}{MARK}{gap}{tail.lstrip()}"


def _head(text: str, characters: int) -> str:
    for boundary in BOUNDARIES:
        cut = text.rfind(boundary, characters - characters // SLACK, characters)
        if cut > 0:
            return text[:cut] if boundary == " [SEP] " else text[: cut + len(boundary.rstrip())]
    return text[:characters]


def _tail(text: str, characters: int) -> str:
    start = len(text) - characters
    for boundary in BOUNDARIES:
        cut = text.find(boundary, start, start + characters // SLACK + len(boundary))
        if cut > 0:
            return text[cut + len(boundary) :]
    return text[start:]


def largest_fitting(longest: int, fits: Callable[[int], str | None]) -> str | None:
    """``fits(n)`` for the largest n in MIN_OBSERVATION..``longest`` - 1 that a bisection finds to fit.

    ``fits(n)`` is the text with observations of n characters where it fits, else None. None when not even
    MIN_OBSERVATION does.
    """
    best = fits(MIN_OBSERVATION)
    low, high = MIN_OBSERVATION, max(longest, MIN_OBSERVATION)
    while best is not None and high - low > 1:
        middle = (low + high) // 2
        text = fits(middle)
        if text is None:
            high = middle
        else:
            low, best = middle, text
    return best


def fitting_prompt(
    codec: PromptText, prompts: PromptBuilder, limit: int, demonstrations: list[str], inputs: StepInputs
) -> FittedPrompt | None:
    """A step's prompt of at most ``limit`` tokens: None when even the shortest is longer.

    ``demonstrations``: texts, the longest first, at least one; the first that fits replaces
    ``inputs.demonstrations``. Texts that do not fit are deleted from the list, so that later steps do not
    try them again.
    """
    history = list(inputs.history)[-prompts.history :] if prompts.history else []
    shortened: Shortened = ""

    def attempt(observation: str) -> str | None:
        parts = replace(inputs, observation=observation, history=history, demonstrations=demonstrations[0])
        prompt = prompts.act(parts)
        return prompt if len(codec.encode(prompt)) <= limit else None

    while True:
        prompt = attempt(inputs.observation)
        if prompt is not None:
            return FittedPrompt(prompt, shortened)
        if len(demonstrations) > 1:
            del demonstrations[0]
        elif history:
            history, shortened = history[1:], "history"
        else:
            break
    if prompts.fmt.style == "compact" or len(inputs.observation) <= MIN_OBSERVATION:
        return None
    prompt = largest_fitting(
        len(inputs.observation), lambda characters: attempt(shorten(inputs.observation, characters))
    )
    return None if prompt is None else FittedPrompt(prompt, "observation")
