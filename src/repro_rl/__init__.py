"""RePro: retrospective progress-aware training of LLM agents (arXiv 2606.14302), in the open."""

from repro_rl.envs import TaskPanel, TextEnv, make, register_env

__all__ = ["TaskPanel", "TextEnv", "__version__", "make", "register_env"]
__version__ = "0.1.0"
