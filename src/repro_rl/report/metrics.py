"""What each logged metric is, in one line. The page prints these; an unknown metric is drawn without one."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    title: str
    unit: str  # the y axis
    meaning: str
    rate: bool = False  # 0..1


HEALTH: dict[str, Metric] = {
    "update/entropy": Metric(
        "Entropy",
        "nats per token",
        "Spread of the token distribution while sampling. Near zero: the policy no longer explores.",
    ),
    "update/kl": Metric(
        "KL to the reference",
        "nats per token",
        "Distance from the frozen warm-start model. A jump means that it is being left too fast.",
    ),
    "update/clip_fraction": Metric(
        "Clip fraction",
        "share of tokens",
        "Tokens whose probability ratio hit the PPO clip. Above about .3 the steps are too large.",
    ),
    "update/mismatch": Metric(
        "Sampler/trainer mismatch",
        "nats per token",
        "Log-probabilities of the same tokens, sampling against training. It belongs near 0.",
    ),
    "update/grad_norm": Metric(
        "Gradient norm", "L2 norm", "Before clipping. Spikes come ahead of a collapse; zero means no signal."
    ),
    "rollout/length": Metric(
        "Episode length", "steps", "Mean steps per episode. It falls as the policy wins sooner."
    ),
    "rollout/invalid_rate": Metric(
        "Invalid actions", "share of steps", "Actions that the environment refused or could not read."
    ),
    "rollout/format_rate": Metric(
        "Format kept", "share of steps", "Completions that parsed without a defect.", True
    ),
    "rollout/equal_groups": Metric(
        "All-equal groups",
        "share of groups",
        "Groups whose rollouts all ended alike. Outcome reward teaches nothing there.",
        True,
    ),
    "reflect/valid": Metric(
        "Valid reflections", "share of episodes", "Reflections that gave exactly one value per step.", True
    ),
    "reflect/final_won": Metric(
        "Last judgement when won",
        "progress",
        "Mean P_T on successes. The outcome anchor asks for the top.",
        True,
    ),
    "reflect/final_lost": Metric(
        "Last judgement when lost",
        "progress",
        "Mean P_T on failures. Creeping up means that the policy flatters itself.",
        True,
    ),
    "update/lr": Metric("Learning rate", "step size", "After warm-up and schedule."),
    "update/loss": Metric(
        "Loss", "loss", "Policy loss plus weighted KL. Its level says little; a jump does."
    ),
    "update/policy_loss": Metric("Policy loss", "loss", "The clipped surrogate alone, without the KL."),
}

REWARD: dict[str, Metric] = {
    "reward/env": Metric("Environment", "reward per episode", "The outcome reward itself."),
    "reward/shaping": Metric(
        "Progress shaping",
        "reward per episode",
        "beta times the retrospective gains, P_t - P_(t-1), summed: beta times P_T.",
    ),
    "reward/alignment": Metric(
        "Alignment",
        "reward per episode",
        "Minus alpha times the distance of online and retrospective progress.",
    ),
    "reward/format": Metric("Format", "reward per episode", "Penalty for completions that do not parse."),
    "reward/boundary": Metric(
        "Boundary", "reward per episode", "Penalty for judgements that contradict the known outcome."
    ),
    "reward/invalid": Metric("Invalid action", "reward per episode", "Penalty for refused actions."),
}

# Shown elsewhere, or the axes themselves.
ELSEWHERE = frozenset(
    ("iteration", "env_steps", "seconds", "rollout/success", "eval/success", "eval/low", "eval/high")
)

QUALITY: dict[str, tuple[str, str]] = {
    "episodes": ("Episodes", "Without those that the environment broke."),
    "covered": ("Covered", "Share of episodes that give a usable series."),
    "discrimination": (
        "Discrimination, points",
        "Mean progress at steps 1..T-1, successes minus failures (the paper's figure).",
    ),
    "truth_discrimination": ("… of the truth, points", "The same for the true progress on the same steps."),
    "leakage": (
        "Outcome leakage, points",
        "Discrimination beyond what the truth shows: knowledge of the outcome, not of the state.",
    ),
    "monotonicity": ("Monotone pairs", "Share of adjacent steps in successes that do not fall."),
    "monotone_episodes": ("Monotone successes", "Share of successes without any fall."),
    "decay_failures": ("Decaying failures", "Share of failures that end below their own maximum."),
    "mae": ("Error, points", "Mean absolute error against the truth, all steps."),
    "mae_success": ("… in successes", ""),
    "mae_failure": ("… in failures", ""),
    "spearman_success": (
        "Rank correlation in successes",
        "Spearman with the truth within an episode, averaged (number of episodes in brackets).",
    ),
    "spearman_failure": ("… in failures", "The honest test: the outcome is the same in all of them."),
    "pooled_spearman_success": ("Pooled, successes", "All steps together; flatters."),
    "pooled_spearman_failure": ("Pooled, failures", ""),
    "gain_spearman_success": ("Gains, successes", "Spearman of the step gains, which shaping pays."),
    "gain_spearman_failure": ("Gains, failures", ""),
    "final_success": ("Last value, successes", "Mean, points."),
    "final_failure": ("Last value, failures", "Mean, points."),
}

POINTS = frozenset(
    f"{kind}{part}"
    for kind in ("mae", "final", "discrimination", "truth_discrimination", "leakage")
    for part in ("", "_success", "_failure")
)
RANKS = frozenset(
    f"{kind}_{part}"
    for kind in ("spearman", "pooled_spearman", "gain_spearman")
    for part in ("success", "failure")
)
