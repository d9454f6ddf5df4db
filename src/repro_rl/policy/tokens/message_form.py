"""How a chat template wants its messages: contents as lists of parts or not, with a system message or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Content = str | list[dict[str, str]]  # a text, or its parts: {"type": "text", "text": ...}


@dataclass(slots=True, frozen=True)
class MessageForm:
    """Of one chat template; most take texts and demand no system message."""

    parts: bool = False  # contents are lists of parts, as those of models of more than text
    system: str | None = None  # the system message that it demands; None: it demands none

    @property
    def contents(self) -> str:
        """The form of contents, in a word for manifests."""
        return "parts" if self.parts else "text"

    def content(self, text: str) -> Content:
        """``text`` as the content of a message."""
        return [{"type": "text", "text": text}] if self.parts else text

    def messages(self, turns: Iterable[Message]) -> list[Message]:
        """``turns`` (role and content, a text) as messages of this form, behind the system message."""
        begin = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [{**turn, "content": self.content(turn["content"])} for turn in (*begin, *turns)]


PLAIN = MessageForm()  # of most templates


def continued(content: Content, text: str) -> Content:
    """The content of a message with ``text`` at its end, in the form that it has.

    Two line breaks stand between them, unless there was nothing before.
    """
    if isinstance(content, str):
        return f"{content}\n\n{text}" if content else text
    filled = any(part.get("text", "x") for part in content)
    return [*content, {"type": "text", "text": f"\n\n{text}"}] if filled else [{"type": "text", "text": text}]
