"""ALFWorld: official games and generated households, played natively."""

from repro_rl.envs.alfworld.env import AlfworldEnv

__all__ = ["AlfworldEnv"]
