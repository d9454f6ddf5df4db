"""Sokoban: generated rooms of any size, or level files. An exact solver gives ``expert`` and ``progress``."""

from repro_rl.envs.sokoban.env import SokobanEnv

__all__ = ["SokobanEnv"]
