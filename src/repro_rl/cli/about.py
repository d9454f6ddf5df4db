"""What a thing with a name is, in one sentence of its docstring or file."""

from __future__ import annotations

import re
from typing import Any


def first_sentence(value: Any) -> str:
    """The first sentence of a docstring, without the markup of the source; empty where there is none.

    Of a batch annotator and of a source over groups, it is the docstring of the function in it.
    """
    from repro_rl.config.reference import first_paragraph
    from repro_rl.credit.sources import GroupSource
    from repro_rl.demos import BatchAnnotator

    function = (
        value.label
        if isinstance(value, BatchAnnotator)
        else value.series
        if isinstance(value, GroupSource)
        else value
    )
    sentence = re.sub(r" \(decision D\d+\)", "", first_paragraph(function))
    sentence = re.sub(r"(?<!\S)\*(\w+)\*", r"\1", sentence)  # *emphasis*
    return sentence.split(". ")[0].rstrip(".") + ("." if sentence else "")


def first_comment(text: str) -> str:
    """The comment at the head of a YAML file, its first sentence."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines).split(". ")[0].rstrip(".") + "."
