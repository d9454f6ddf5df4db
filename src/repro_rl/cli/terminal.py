"""The one place where text reaches a terminal: no text of others can drive it.

A server, a model, a file or its name may hold escape sequences, other control characters, or characters that
turn the direction of writing. They are written as codes such as ``\\u001b``, whatever printed them.
"""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from repro_rl.errors import clause, visible

# What stands for characters that the terminal's encoding lacks, such as cp1252 of Windows: one character
# each, so that tables keep their columns; two where one would say something else.
PLAIN = {
    ord(char): text
    for char, text in (
        *zip("✓✗→←↑↓−ρ×·…█░▒▓√λγβαω╌┄", "+x><^v-r *.#...*lgbaw--", strict=True),
        ("≥", ">="),  # "> 0" would be another bound
        ("≤", "<="),
    )
}
PLAIN_ERRORS = "repro_rl.plain"  # the name of the error handler


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of ``codecs``: every character that cannot be written becomes a similar ASCII one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = unicodedata.normalize("NFKD", error.object[error.start : error.end].translate(PLAIN))
    text = "".join(char for char in lost if not unicodedata.combining(char))
    return "".join(char if char.isascii() else "?" for char in text), error.end


def survive_encodings() -> None:
    """From now on no output fails because of an encoding that lacks a character."""
    codecs.register_error(PLAIN_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=PLAIN_ERRORS)


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


def clean_the_rest() -> None:
    """What Python itself prints from now on is clean too: warnings, log records and tracebacks."""
    warnings.formatwarning = _warning_text
    if logging.getLogRecordFactory() is not _clean_record:
        logging.setLogRecordFactory(_clean_record)
    sys.excepthook = _print_traceback


def careful(remark: object) -> str:
    """A remark on what is probably not meant, as every command prints it and Python's warnings."""
    return f"Careful: {remark}"


def _warning_text(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    text = careful(message) if category is UserWarning else f"{category.__name__}: {message}"
    where = f" ({filename}:{lineno})" if os.environ.get("REPRO_RL_TRACEBACK") else ""
    return visible(f"{text}{where}\n")


def _clean_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    try:
        record.msg, record.args = visible(record.getMessage()), ()
    except (TypeError, ValueError):  # of a library that logs a wrong format: logging reports it
        record.msg = visible(str(record.msg))
    return record


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))


def clean_message(error: Any) -> Any:
    """An error of the command's own words, which may be names of files, with its message safe to print.

    An unknown option that is called like a setting gets the way in which settings are written.
    """
    error.message = visible(error.message)
    if type(error).__name__ == "NoSuchOption":
        from repro_rl.config.reference import setting_names

        name = str(error.option_name).lstrip("-").partition("=")[0]
        if "." in name or name in setting_names():
            error.message = (
                f"{clause(error.message)}. Settings are written without dashes: {visible(name)}=VALUE"
            )
    return error
