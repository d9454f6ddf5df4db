"""The taskset of verifiers for WebShop: ``vf-eval repro-rl-webshop`` (docs/adapters.md)."""

from repro_rl.integrations.verifiers.harness import InProcess
from repro_rl.integrations.verifiers.taskset import Conversation, PanelTaskset

__all__ = ["Conversation", "InProcess", "WebShopTaskset"]


class WebShopTaskset(PanelTaskset):
    """The tasks of a panel of WebShop."""

    ENVIRONMENT = "webshop"
