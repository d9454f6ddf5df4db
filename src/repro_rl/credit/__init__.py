"""Credit: from finished episodes to rewards and advantages."""

from repro_rl.credit.assign import assign_credit, reflection_advantages
from repro_rl.credit.gigpo import gigpo_advantages
from repro_rl.credit.grpo import grpo_advantages
from repro_rl.credit.hgpo import hgpo_advantages
from repro_rl.credit.reflections import ReflectionChoice
from repro_rl.credit.reward import composite_rewards, reflection_reward
from repro_rl.credit.rloo import rloo_advantages
from repro_rl.credit.rules import CREDIT, Anchors, CreditRule, Rewards, register_credit
from repro_rl.credit.settings import CreditSettings, RewardSettings
from repro_rl.credit.sources import SOURCES, ProgressSource, progress_series, register_progress

__all__ = [
    "CREDIT",
    "SOURCES",
    "Anchors",
    "CreditRule",
    "CreditSettings",
    "ProgressSource",
    "ReflectionChoice",
    "RewardSettings",
    "Rewards",
    "assign_credit",
    "composite_rewards",
    "gigpo_advantages",
    "grpo_advantages",
    "hgpo_advantages",
    "progress_series",
    "reflection_advantages",
    "reflection_reward",
    "register_credit",
    "register_progress",
    "rloo_advantages",
]
