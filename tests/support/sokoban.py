"""Sokoban levels for tests."""

from __future__ import annotations

from pathlib import Path

from repro_rl.envs.sokoban import SokobanEnv


def level_env(tmp_path: Path, text: str, **kwargs) -> SokobanEnv:
    file = tmp_path / "hand.xsb"
    file.write_text(text)
    env = SokobanEnv(levels=str(file), **kwargs)
    env.reset(options={"task": "hand/all/0"})
    return env
