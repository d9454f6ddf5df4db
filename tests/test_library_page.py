"""docs/library.md: its Python blocks run as one program, and it explains every public name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import repro_rl

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
TEXT = PAGE.read_text()
# The Python blocks of the page, in order.
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
# First-column names of the tables under "Public names".
LISTED = re.findall(r"^\| `(\w+)` \|", TEXT.partition("\n## Public names\n")[2], re.MULTILINE)


def test_the_blocks_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "library_page"}
    for number, code in enumerate(BLOCKS, 1):
        exec(compile(code, f"{PAGE.name}, Python block {number}", "exec"), namespace)
    assert (tmp_path / "runs" / "library" / "rl" / "eval" / "last.json").is_file()


def test_every_public_name_is_listed_once_and_no_other() -> None:
    assert sorted(LISTED) == sorted(repro_rl.__all__)
