"""Sokoban levels for tests, and a Sokoban that tells no progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repro_rl import register_env
from repro_rl.envs.base import ENVS
from repro_rl.envs.sokoban import SokobanEnv


def level_env(tmp_path: Path, text: str, **kwargs) -> SokobanEnv:
    file = tmp_path / "hand.xsb"
    file.write_text(text)
    env = SokobanEnv(levels=str(file), **kwargs)
    env.reset(options={"task": "hand/all/0"})
    return env


@contextmanager
def without_progress() -> Iterator[str]:
    """The name of an environment that tells no progress, registered within the block."""
    with ENVS.isolated():

        @register_env("unknowing")
        class Unknowing(SokobanEnv):
            name = "unknowing"

            def _progress(self) -> None:
                return None

        yield Unknowing.name
