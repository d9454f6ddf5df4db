"""Task panels: ordered task ids with a digest over the content of the tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from repro_rl.errors import TaskError, counted


@dataclass(slots=True, frozen=True)
class TaskPanel:
    """An ordered, fixed set of tasks.

    The same panel has the same digest in every process and machine (decision D41).
    """

    env: str  # name of the environment, part of the digest
    split: str  # such as "validation"; no part of the digest
    ids: tuple[str, ...]  # task ids, in order
    contents: tuple[str, ...]  # canonical text of each task; input of the digest

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.contents):
            raise TaskError(
                f"Panel {self.env}/{self.split}: {len(self.ids)} ids, {len(self.contents)} contents."
            )

    @property
    def digest(self) -> str:
        """sha256 over environment name, ids and contents, in order."""
        return content_digest(
            [self.env, *(part for pair in zip(self.ids, self.contents, strict=True) for part in pair)]
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def head(self, count: int) -> TaskPanel:
        """The first ``count`` tasks, as a panel of its own (with its own digest).

        Raises TaskError when the panel is smaller.
        """
        if not 1 <= count <= len(self.ids):
            raise TaskError(
                f"Panel {self.env}/{self.split} has {counted(len(self.ids), 'task')}, {count} were asked "
                f"for; ask for 1 to {len(self.ids)}."
            )
        return TaskPanel(self.env, self.split, self.ids[:count], self.contents[:count])

    def shared(self, other: TaskPanel) -> list[str]:
        """The ids here of the tasks that ``other`` has too, by their contents."""
        known = set(other.contents)
        return [task for task, content in zip(self.ids, self.contents, strict=True) if content in known]

    def label(self) -> str:
        """Printed beside every result: environment, split, size and the first 12 digits of the digest."""
        return f"{self.env}/{self.split}[{len(self.ids)}]@{self.digest[:12]}"

    def manifest(self) -> dict[str, Any]:
        """The panel's entry in a run's manifest."""
        return {"label": self.label(), "digest": self.digest, "size": len(self)}


def content_digest(parts: Iterable[str]) -> str:
    """sha256 of length-prefixed UTF-8 parts, so that no two lists collide by concatenation."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
