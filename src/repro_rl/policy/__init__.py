"""Policies: text in, sampled token ids with log-probs out."""

from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.policy.tiny import build_tiny
from repro_rl.policy.transformers_policy import TransformersPolicy

__all__ = ["Policy", "SamplingSettings", "TransformersPolicy", "build_tiny"]
