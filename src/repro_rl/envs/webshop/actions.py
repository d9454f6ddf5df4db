"""The action grammar: ``search[...]`` and ``click[...]``."""

from __future__ import annotations

import re

SEARCH_HINT = "search[<your query>]"
_FORM = re.compile(r"(.+)\[(.+)\]")


def parse(action: str) -> tuple[str, str]:
    """(verb, argument in lower case) of an action; ("", "") when it is not of the form ``verb[argument]``.

    As in the original: the verb is case-sensitive, text after the last ``]`` is ignored, and neither verb nor
    argument can hold a line break.
    """
    match = _FORM.match(action)
    return (match[1], match[2].lower()) if match else ("", "")


def click(name: str) -> str:
    return f"click[{name}]"


def clickable(name: str) -> bool:
    """Whether ``click[name]`` parses to ``name``; the original's search button has no effect."""
    return name != "search" and parse(click(name)) == ("click", name)
