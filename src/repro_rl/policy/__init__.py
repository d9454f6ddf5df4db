"""Policies: prompts in, sampled token ids with their log-probabilities out.

Importing this package loads neither torch nor transformers; the names that need them are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from repro_rl.policy.base import ChatSession, Policy, PromptText, Sampler, SamplingSettings
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.policy.tokens.codec import TextCodec

if TYPE_CHECKING:
    from repro_rl.policy.loading.codec import load_codec
    from repro_rl.policy.loading.tiny import build_tiny
    from repro_rl.policy.transformers_policy import TransformersPolicy

__all__ = [
    "ChatSession",
    "Policy",
    "PromptText",
    "Sampler",
    "SamplingSettings",
    "TextCodec",
    "TokenPolicy",
    "TransformersPolicy",
    "build_tiny",
    "load_codec",
]

_LAZY = {
    "loading.codec": ["load_codec"],
    "loading.tiny": ["build_tiny"],
    "transformers_policy": ["TransformersPolicy"],
}
__getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs=_LAZY)
