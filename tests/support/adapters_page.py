"""The Python blocks of docs/adapters.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "adapters.md"


def run_section(title: str) -> dict[str, Any]:
    """Run the blocks under a heading, one after another; returns their names."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks, title
    names: dict[str, Any] = {"__name__": "adapters_page"}
    for number, code in enumerate(blocks, 1):
        exec(compile(code, f"{PAGE.name}, {title}, block {number}", "exec"), names)
    return names
