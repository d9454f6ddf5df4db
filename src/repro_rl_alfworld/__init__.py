"""The taskset of verifiers for ALFWorld: ``vf-eval repro-rl-alfworld`` (docs/adapters.md)."""

from repro_rl.integrations.verifiers.harness import InProcess
from repro_rl.integrations.verifiers.taskset import Conversation, PanelTaskset

__all__ = ["AlfworldTaskset", "Conversation", "InProcess"]


class AlfworldTaskset(PanelTaskset):
    """The tasks of a panel of ALFWorld."""

    ENVIRONMENT = "alfworld"
