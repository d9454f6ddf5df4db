"""Environments. Importing this package registers the built-in ones."""

from repro_rl.envs.alfworld import AlfworldEnv
from repro_rl.envs.base import ENVS, TextEnv, make, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.webshop import WebShopEnv

__all__ = ["ENVS", "AlfworldEnv", "SokobanEnv", "TaskPanel", "TextEnv", "WebShopEnv", "make", "register_env"]
