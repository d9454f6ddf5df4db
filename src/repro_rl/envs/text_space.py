"""Any text as a gymnasium space: gymnasium's own ``Text`` holds the letters of a fixed set only."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory
from numpy.typing import NDArray

from repro_rl.errors import EnvError, counted

LONGEST_OBSERVATION, LONGEST_ACTION = 262_144, 10_000  # characters, of every environment
SIZE = 8  # bytes before a text in shared memory that say how long it is


class AnyText(spaces.Text):
    """Texts of at most ``max_length`` characters, whichever they are.

    ``sample`` draws letters and digits. It works in gymnasium's ``AsyncVectorEnv`` too, where texts come
    through shared memory as UTF-8.
    """

    def __init__(self, max_length: int, seed: int | np.random.Generator | None = None):
        super().__init__(max_length, min_length=0, seed=seed)

    @property
    def room(self) -> int:
        """Bytes of the longest text in shared memory."""
        return int(SIZE + 4 * self.max_length)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a text that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"AnyText({self.max_length})"


@create_shared_memory.register(AnyText)
def _create(space: AnyText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.Array("B", n * space.room)


@write_to_shared_memory.register(AnyText)
def _write(space: AnyText, index: int, value: str, shared_memory: Any) -> None:
    data = value.encode("utf-8", "surrogatepass")
    if SIZE + len(data) > space.room:  # the rest would stand in the text of the next environment
        raise EnvError(
            f"Environment {index} gave a text of {counted(len(value), 'character')} ({len(data)} bytes), "
            f"more than the {space.max_length} that its space {space!r} allows. Shorten its observations."
        )
    data = len(data).to_bytes(SIZE, "little") + data
    cells = np.frombuffer(shared_memory.get_obj(), dtype=np.uint8)
    cells[index * space.room :][: len(data)] = np.frombuffer(data, dtype=np.uint8)


@read_from_shared_memory.register(AnyText)
def _read(space: AnyText, shared_memory: Any, n: int = 1) -> _Texts:
    return _Texts(np.frombuffer(shared_memory.get_obj(), dtype=np.uint8).reshape(n, space.room))


class _Texts(Sequence[str]):
    """The texts in shared memory as they are now; a deep copy is a tuple of them.

    ``AsyncVectorEnv`` reads once, when it is built, and copies at every step. So gymnasium's own ``Text``,
    which is read into a tuple at once, stays empty there.
    """

    def __init__(self, rows: NDArray[np.uint8]):
        self.rows = rows  # [n, room]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        data: bytes = self.rows[index].tobytes()
        length = int.from_bytes(data[:SIZE], "little")
        return data[SIZE : SIZE + length].decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: object) -> tuple[str, ...]:
        return tuple(self)
