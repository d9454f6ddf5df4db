"""The taskset of verifiers for Sokoban: ``vf-eval repro-rl-sokoban`` (docs/adapters.md)."""

from repro_rl.integrations.verifiers.harness import InProcess
from repro_rl.integrations.verifiers.taskset import Conversation, PanelTaskset

__all__ = ["Conversation", "InProcess", "SokobanTaskset"]


class SokobanTaskset(PanelTaskset):
    """The tasks of a panel of Sokoban."""

    ENVIRONMENT = "sokoban"
