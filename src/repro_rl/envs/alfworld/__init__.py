"""ALFWorld: official games and generated households, played by a native engine."""

from repro_rl.envs.alfworld.env import AlfworldEnv

__all__ = ["AlfworldEnv"]
