"""The rules of an environment as text, from the file ``instructions.yaml`` beside its code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from repro_rl.files import TABLE, read_yaml


@dataclass(slots=True, frozen=True)
class Instructions:
    """The content of a file ``instructions.yaml``."""

    __pydantic_config__ = TABLE
    rules: str
    styles: dict[str, str] = field(default_factory=dict)  # style -> how to read its observations


@cache
def read_instructions(folder: Path) -> Instructions:
    """The instructions of the environment in ``folder``. Raises DataError naming file and key."""
    return read_yaml(folder / "instructions.yaml", Instructions)
