"""Questions to a chat-completions server, and what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_rl.policy.http import Answer, Failure, Question


def ask(text: str = "hello", sample: int = 0, temperature: float = 1.0, **more: Any) -> Question:
    return Question((("user", text),), max_tokens=50, temperature=temperature, sample=sample, **more)


def texts(results: list[Answer | Failure]) -> list[Any]:
    return [result.text if isinstance(result, Answer) else result for result in results]


def on_disk(folder: Path) -> bytes:
    """Everything in the files of ``folder``."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
