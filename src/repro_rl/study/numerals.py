"""Numbers as texts: a typographic minus, no minus before a zero, a dash for no number."""

from __future__ import annotations

DASH = "–"


def fixed(value: float | None, digits: int, *, sign: bool = False) -> str:
    """``value`` with ``digits`` decimals; with ``sign``, a plus before what is not negative."""
    if value is None:
        return DASH
    rounded = round(value, digits) + 0.0  # + 0.0: no minus before a zero
    return format(rounded, f"{'+' if sign else ''}.{digits}f").replace("-", "−")
