"""How the turns of a growing conversation become token ids, one after another.

Nothing that was said is ever tokenised again: an answer stays the ids that were sampled, and a user turn adds
exactly the ids that the chat template puts between that answer and the next one (end of turn, role headers,
generation prompt). A template may write earlier answers differently in hindsight: Qwen3's takes the thoughts
out of them. We keep what was sampled (our decision): otherwise no conversation could be trained on as it was
sampled, nor its keys and values be kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from repro_rl.errors import ConfigError
from repro_rl.policy.encode import plain_ids
from repro_rl.types import Ids

REMEMBERED = 1_000_000  # tokens of encoded turns: about 40 MB of Python integers
_ANSWER = "answer7f3a"  # stands for an answer while the template is asked what follows one


class Turns:
    """User turns as ids, in the chat template of a policy with ``tokenizer``, ``chat`` and ``thinking``.

    Without a chat template a turn is its text alone, after the end-of-text token of the answer before it.
    Raises ConfigError for a template that leaves out answers.
    """

    def __init__(self, policy: Any):
        self._policy = policy
        self._known: dict[str, Ids] = {}
        self._tokens = 0

    def first(self, text: str) -> Ids:
        """The turn that begins a conversation, up to where the answer begins."""
        return self._policy.encode(text)  # type: ignore[no-any-return]

    def following(self, text: str) -> Ids:
        """A later turn, with the end-of-turn token of the answer before it in front."""
        ids = self._known.get(text)
        if ids is None:
            if self._tokens > REMEMBERED:
                self._known.clear()
                self._tokens = 0
            ids = self._known[text] = self._encode(text)
            self._tokens += len(ids)
        return ids

    def answer(self, text: str) -> Ids:
        """An answer to imitate, its end included."""
        return self._policy.encode_target(text)  # type: ignore[no-any-return]

    def _encode(self, text: str) -> Ids:
        policy = self._policy
        tokenizer = policy.tokenizer
        if not policy.chat:
            return (*policy.encode_target("")[-1:], *plain_ids(tokenizer, text))
        written = str(
            tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": _ANSWER},
                    {"role": "user", "content": text},
                ],
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=policy.thinking,
            )
        )
        place = written.find(_ANSWER)
        ids = plain_ids(tokenizer, written[place + len(_ANSWER) :])
        if place < 0 or not ids:
            raise ConfigError(
                "The tokenizer's chat template does not show earlier answers, so a conversation cannot grow; "
                "use prompt.context=window or policy.chat=off."
            )
        return ids


@dataclass(slots=True)
class Conversation:
    """The ids of one conversation so far: user turns as written, answers as sampled."""

    turns: Turns
    ids: list[int] = field(default_factory=list)
    _last: int | None = None  # last token of the newest answer; None before the first one

    def turn(self, text: str) -> Ids:
        """The ids that a user turn would add.

        An answer that ended with the end-of-turn token has brought it along; behind one that was cut off, or
        that ended with another end token, it is part of the turn (and so never trained on).
        """
        if self._last is None:
            return self.turns.first(text)
        ids = self.turns.following(text)
        return ids[1:] if ids[0] == self._last else ids

    def add(self, turn: Ids, answer: Ids) -> None:
        """Append a user turn and the answer to it (ids as sampled)."""
        self.ids += turn
        self.ids += answer
        self._last = answer[-1] if answer else -1
