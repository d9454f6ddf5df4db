"""Texts in the shared memory of vector environments."""

from __future__ import annotations

import pytest
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from repro_rl.envs.text_space import AnyText
from repro_rl.errors import EnvError


def test_a_text_that_is_too_long_leaves_its_neighbour_alone() -> None:
    space = AnyText(2)  # room for two characters of four bytes each, after the eight bytes of a length
    memory = create_shared_memory(space, n=2)
    view = read_from_shared_memory(space, memory, n=2)
    write_to_shared_memory(space, 1, "ok", memory)
    write_to_shared_memory(space, 0, "\U0001f600\U0001f600", memory)
    assert tuple(view) == ("\U0001f600\U0001f600", "ok")
    said = (
        r"Environment 0 gave a text of 9 characters \(9 bytes\), more than the 2 that its space AnyText\(2\)"
    )
    with pytest.raises(EnvError, match=said):
        write_to_shared_memory(space, 0, "123456789", memory)
    assert tuple(view) == ("\U0001f600\U0001f600", "ok")
