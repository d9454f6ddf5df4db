"""The action grammar: ``search[...]`` and ``click[...]``."""

from __future__ import annotations

import re

SEARCH_HINT = "search[<your query>]"
_FORM = re.compile(r"(.+)\[(.+)\]")


def parse(action: str) -> tuple[str, str]:
    """(verb, argument in lower case) of an action; ("", "") when it has not the form ``verb[argument]``.

    As the original: the verb is case-sensitive and taken as it is, text after the last ``]`` is ignored, a
    line break is never part of verb or argument.
    """
    found = _FORM.match(action)
    return (found[1], found[2].lower()) if found else ("", "")


def click(name: str) -> str:
    return f"click[{name}]"


def clickable(name: str) -> bool:
    """Whether ``click[name]`` reads back to ``name``; the original's search button never does anything."""
    return name != "search" and parse(click(name)) == ("click", name)
