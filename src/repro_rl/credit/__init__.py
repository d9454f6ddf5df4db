"""Credit: from finished episodes to rewards and advantages."""

import repro_rl.credit.classic  # noqa: F401  (registers GRPO, RLOO, GiGPO, HGPO)
from repro_rl.credit.assign import assign_credit, reflection_advantages
from repro_rl.credit.baseline import Normalize
from repro_rl.credit.dapo import kept_groups, mixed, overlong_penalty
from repro_rl.credit.dr_grpo import dr_grpo_advantages
from repro_rl.credit.entry import advantages
from repro_rl.credit.g2po import g2po_advantages
from repro_rl.credit.gagpo import gagpo_advantages
from repro_rl.credit.gate import judge_agreement
from repro_rl.credit.gigpo import gigpo_advantages
from repro_rl.credit.graphgpo import graphgpo_advantages
from repro_rl.credit.group_sources import graph_progress, graph_values
from repro_rl.credit.grpo import grpo_advantages
from repro_rl.credit.hcapo import hcapo_advantages
from repro_rl.credit.hgpo import hgpo_advantages
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.interplay import unpaid, without_inputs
from repro_rl.credit.maxrl import maxrl_advantages
from repro_rl.credit.mt_grpo import mt_grpo_advantages
from repro_rl.credit.mt_grpo_multi import mt_grpo_multi_advantages
from repro_rl.credit.pace import pace_advantages
from repro_rl.credit.progress_advantage import progress_advantages
from repro_rl.credit.proxmo import proxmo_advantages
from repro_rl.credit.reflections import ReflectionChoice
from repro_rl.credit.reinforce_pp import reinforce_pp_advantages
from repro_rl.credit.reinforce_pp_baseline import reinforce_pp_baseline_advantages
from repro_rl.credit.reward import composite_rewards, reflection_reward
from repro_rl.credit.rloo import rloo_advantages
from repro_rl.credit.rules import CREDIT, Anchors, CreditRule, Rewards, reads, register_credit
from repro_rl.credit.settings import CreditSettings, RewardSettings
from repro_rl.credit.sources import SOURCES, GroupSource, ProgressSource, progress_series, register_progress

__all__ = [
    "CREDIT",
    "SOURCES",
    "Anchors",
    "CreditInputs",
    "CreditRule",
    "CreditSettings",
    "GroupSource",
    "Normalize",
    "ProgressSource",
    "ReflectionChoice",
    "RewardSettings",
    "Rewards",
    "advantages",
    "assign_credit",
    "composite_rewards",
    "dr_grpo_advantages",
    "g2po_advantages",
    "gagpo_advantages",
    "gigpo_advantages",
    "graph_progress",
    "graph_values",
    "graphgpo_advantages",
    "grpo_advantages",
    "hcapo_advantages",
    "hgpo_advantages",
    "judge_agreement",
    "kept_groups",
    "maxrl_advantages",
    "mixed",
    "mt_grpo_advantages",
    "mt_grpo_multi_advantages",
    "overlong_penalty",
    "pace_advantages",
    "progress_advantages",
    "progress_series",
    "proxmo_advantages",
    "reads",
    "reflection_advantages",
    "reflection_reward",
    "register_credit",
    "register_progress",
    "reinforce_pp_advantages",
    "reinforce_pp_baseline_advantages",
    "rloo_advantages",
    "unpaid",
    "without_inputs",
]
