"""Sokoban: generated rooms of any size or level files, with an exact solver behind ``expert`` and
``progress``."""

from repro_rl.envs.sokoban.env import SokobanEnv

__all__ = ["SokobanEnv"]
