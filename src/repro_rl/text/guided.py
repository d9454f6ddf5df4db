"""Guided answers: texts that are given but for some integers, which a policy samples.

A small model cannot count the steps of its episode. In a guided reflection it need not: ``step 7: ``, tags
and line breaks are given, and only the progress is sampled. So every answer has T values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repro_rl.errors import DataError


@dataclass(slots=True, frozen=True)
class GuidedText:
    """A text of K integers and the K + 1 pieces before, between and behind them, K > 0."""

    pieces: tuple[str, ...]  # [K + 1]; those between two integers are not empty
    values: tuple[int, ...]  # that each of the integers may be, ascending

    def __len__(self) -> int:
        """K, the number of integers."""
        return len(self.pieces) - 1

    def render(self, values: Sequence[int]) -> str:
        """The text with these integers [K]."""
        parts = [f"{piece}{value}" for piece, value in zip(self.pieces, values, strict=False)]
        return "".join(parts) + self.pieces[-1]

    # What servers of text are asked with -----------------------------------------------------------

    def regex(self) -> str:
        """The regular expression of all its texts: ``(?:...)``, ``|`` and ``\\n`` are all it uses."""
        number = f"(?:{'|'.join(map(str, self.values))})"
        return number.join(_escape(piece) for piece in self.pieces)

    def grammar(self) -> str:
        """All its texts as a grammar in GBNF, the notation of llama.cpp."""
        parts = [_quote(self.pieces[0])]
        for piece in self.pieces[1:]:
            parts += ["number", _quote(piece)]
        numbers = " | ".join(f'"{value}"' for value in self.values)
        return f"root ::= {' '.join(parts)}\nnumber ::= {numbers}\n"

    def schema(self) -> dict[str, Any]:
        """A JSON schema of an object with an integer for each: ``step_1`` ... ``step_K``."""
        number = {"type": "integer", "minimum": self.values[0], "maximum": self.values[-1]}
        names = [f"step_{k}" for k in range(1, len(self) + 1)]
        return {
            "type": "object",
            "properties": dict.fromkeys(names, number),
            "required": names,
            "additionalProperties": False,
        }

    def of_object(self, content: object) -> str:
        """The text with the integers of an object of ``schema``. Raises DataError for another object."""
        values: list[int] = []
        for name in self.schema()["required"]:
            value = content.get(name) if isinstance(content, dict) else None
            if type(value) is not int or value not in self.values:
                raise DataError(f"the answer is not an object of {len(self)} integers: {name} is {value!r}")
            values.append(value)
        return self.render(values)


def _escape(text: str) -> str:
    return re.sub(r"([\\.^$*+?()\[\]{}|])", r"\\\1", text).replace("\n", "\\n")


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
