"""The one place where text reaches a terminal: no text of others can drive it.

A server, a model, a file or its name may hold escape sequences, other control characters, or characters that
turn the direction of writing. They are written as codes such as ``\\u001b``, whatever printed them.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

UNSAFE = (
    "Cc",
    "Cf",
    "Cs",
    "Zl",
    "Zp",
)  # categories: control, format, surrogate, line and paragraph separators


def visible(text: str) -> str:
    """``text`` safe to print: control and text-direction characters are written as codes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in UNSAFE else f"\\u{ord(char):04x}"
        for char in text
    )


class SafeConsole(Console):
    """A console that writes every text through ``visible``; only rich's own control codes are kept.

    Text is plain: square brackets in it mean no style, and no link. Styles are objects (``rich.text``).
    """

    def __init__(self, *, stderr: bool = False):
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield Segment(visible(segment.text), segment.style)


def print_warnings(to: Console) -> None:
    """Warnings are printed by ``to`` from now on, each as one plain sentence."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            file.write(visible(warnings.formatwarning(message, category, filename, lineno, line)))
            return
        text = f"Careful: {message}" if category is UserWarning else f"{category.__name__}: {message}"
        if os.environ.get("REPRO_RL_TRACEBACK"):
            text += f" ({filename}:{lineno})"
        to.print(text, highlight=False, markup=False, soft_wrap=True)

    warnings.showwarning = show


def clean_message(error: Any) -> Any:
    """An error of the command's own words, which may be names of files, with its message safe to print."""
    error.message = visible(error.message)
    return error
