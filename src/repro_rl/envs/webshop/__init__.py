"""WebShop: the original's pages, search and rewards, without Java, in one process."""

from repro_rl.envs.webshop.env import WebShopEnv

__all__ = ["WebShopEnv"]
