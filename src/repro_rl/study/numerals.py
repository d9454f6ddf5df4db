"""Numbers in texts: a typographic minus, no minus before a zero, a dash for no number; numbered labels."""

from __future__ import annotations

from collections.abc import Sequence

DASH = "–"


def fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """``value`` with ``digits`` decimals; with ``sign``, a plus before what is not negative."""
    if value is None:
        return DASH
    rounded = round(value, digits) + 0.0  # + 0.0: no minus before a zero
    return format(rounded, f"{'+' if sign else ''}.{digits}f").replace("-", "−")


def numbered(labels: Sequence[str]) -> list[str]:
    """``labels`` made different: the second of the same one ends with (2), and so on."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return result
