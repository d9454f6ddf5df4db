"""Do answers fit ``prompt.action_tokens``, and can the tokenizer write them? Else a run loses every episode.

An answer has its tags, the reported progress where the method asks for it, and an action. Which actions there
are is looked up in a few steps of one task. No expert is asked: in a hard room its plan may take minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from repro_rl.envs.base import TextEnv, filled
from repro_rl.envs.contract import checked_reset, checked_step
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.run.answer_text import Misread, misread_actions
from repro_rl.text.parse import TextFormat, held_action
from repro_rl.text.prompts import PromptBuilder

CHARACTERS = (
    4.0  # of an answer for one token, where only a server knows its tokens: few, not to warn too soon
)
LOOKED = 8  # steps: of them the longest action that is listed is taken
THOUGHT = 20  # tokens of a short sentence: least room for a thought that every answer must have


@dataclass(frozen=True, slots=True)
class AnswerLengths:
    """The shortest and the longest answer of a task, without a thought."""

    shortest: int  # tokens, with the end of the answer
    short: str  # its text
    longest: int
    long: str
    exact: bool  # counted by the tokenizer; else estimated from the characters
    misread: Misread | None = None  # answers that the tokenizer cannot write


def answer_lengths(
    env: TextEnv, task: str, prompts: PromptBuilder, codec: TextCodec | None
) -> AnswerLengths | None:
    """Of the actions that ``task`` lists; None where it lists none.

    Free text in an action, such as a query, is taken for one letter.

    ``codec``: None where the tokenizer is not here.
    """
    size: Callable[[str], int]
    if codec is None:
        size = lambda text: math.ceil(len(text) / CHARACTERS)  # noqa: E731
    else:
        size = lambda text: len(codec.encode_target(text))  # noqa: E731
    found: dict[str, int] = {}
    plain: dict[str, str] = {}  # answer -> its action, where that has no free text
    for action in possible_actions(env, task):
        for online in (0, 100):  # the shortest and the longest number
            try:
                text = prompts.action_target(online, filled(action, "x"))
            except ConfigError:  # no answer can hold it, however long
                continue
            found[text] = size(text)
            if filled(action, "x") == action:
                plain[text] = held_action(action, prompts.fmt)
    if not found:
        return None
    short, long = min(found, key=lambda text: found[text]), max(found, key=lambda text: found[text])
    misread = None if codec is None else misread_actions(plain, prompts.fmt, codec)
    return AnswerLengths(found[short], short, found[long], long, codec is not None, misread)


def possible_actions(env: TextEnv, task: str) -> list[str]:
    """What is listed in the first steps, each once; an episode that fails or ends tells less."""
    actions: dict[str, None] = {}
    taken: set[str] = set()
    try:
        _, info = checked_reset(env.reset(options={"task": task}))
        for _ in range(LOOKED):
            actions |= dict.fromkeys(info["admissible"])
            action = max(set(info["admissible"]) - taken, key=lambda text: (len(text), text), default=None)
            if action is None:
                break
            taken.add(action)
            _, _, terminated, truncated, info = checked_step(env.step(filled(action, info["goal"])))
            if terminated or truncated:
                break
    except Exception:  # environments raise anything; what concerns a run is said when it plays
        pass
    return [action for action in actions if action.strip()]


def check_answers(limit: int, fmt: TextFormat, found: AnswerLengths | None) -> list[str]:
    """What is wrong with answers and ``limit`` (``prompt.action_tokens``), as sentences; [] for nothing.

    Raises PreflightError for a limit that cuts off every answer, and for a tokenizer that cannot write most
    of them. An estimate is never refused.
    """
    if found is None:
        return []
    if found.misread is not None and found.misread.most:
        raise PreflightError(found.misread.sentence)
    remarks = [] if found.misread is None else [found.misread.sentence]
    about = "" if found.exact else "about "
    thought = THOUGHT if fmt.style == "full" and fmt.think == "required" else 0
    needed = found.longest + thought
    if found.shortest > limit:
        problem = (
            f"prompt.action_tokens is {limit}, but the shortest answer has {about}{found.shortest} tokens "
            f"({found.short!r}), so every answer would be cut off. Raise it to {about}{needed} or more."
        )
        if found.exact:
            raise PreflightError(problem)
        return [problem]
    if needed <= limit:
        return remarks
    room = f", and a thought (prompt.think) {thought} or more" if thought else ""
    return [
        *remarks,
        f"prompt.action_tokens is {limit}, but an answer may have {about}{found.longest} tokens "
        f"({found.long[-100:]!r}){room}: it would be cut off. Raise it to {about}{needed} or more.",
    ]
