"""WebShop in one process, without Java: pages, search and rewards of the original program."""

from repro_rl.envs.webshop.env import WebShopEnv

__all__ = ["WebShopEnv"]
