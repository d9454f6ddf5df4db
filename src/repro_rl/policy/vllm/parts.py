"""A part of what a server at the address of a vLLM server answers, which may be another program."""

from __future__ import annotations

import json
from typing import Any

QUOTED = 300  # characters of an answer that a message quotes


def part_of(content: Any, names: tuple[str | int, ...], kind: type) -> Any:
    """The ``kind`` in ``content`` under ``names``, as in ("data", 0, "id").

    Raises LookupError naming what is missing, or of another kind, and quoting ``content``.
    """
    part = content
    try:
        for name in names:
            part = part[name]
    except (KeyError, IndexError, TypeError):
        raise _lacking(content, names) from None
    if not isinstance(part, kind) or isinstance(part, bool):
        raise _lacking(content, names)
    return part


def _lacking(content: Any, names: tuple[str | int, ...]) -> LookupError:
    wanted = ".".join(map(str, names))
    return LookupError(f"answers without a usable {wanted}: {json.dumps(content)[:QUOTED]}")
