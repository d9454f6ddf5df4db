"""The two ways of playing an episode: a prompt of its own for every step, or one growing conversation."""

from __future__ import annotations

from repro_rl.errors import UnknownNameError, did_you_mean
from repro_rl.rollout.context.base import Context, ContextLimits
from repro_rl.rollout.context.chat import ChatContext
from repro_rl.rollout.context.window import WindowContext
from repro_rl.rollout.env_pool import EnvPool

__all__ = ["CONTEXTS", "ChatContext", "Context", "ContextLimits", "WindowContext", "make_context"]

CONTEXTS: dict[str, type[Context]] = {"window": WindowContext, "chat": ChatContext}


def make_context(mode: str, pool: EnvPool, limits: ContextLimits) -> Context:
    """The context of ``prompt.context``: no other code depends on the mode's name.

    Raises UnknownNameError for another mode.
    """
    if mode not in CONTEXTS:
        raise UnknownNameError(f"Unknown context mode {mode!r}{did_you_mean(mode, CONTEXTS)}")
    return CONTEXTS[mode](pool, limits)
