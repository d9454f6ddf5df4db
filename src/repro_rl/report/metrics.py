"""What each logged metric is, in one line. The page prints these; an unknown metric is drawn without one."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    title: str
    unit: str  # the y axis
    meaning: str
    top: int = 0  # of the y axis: 1 for rates, 100 for progress, 0 to follow the data


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
        "Format kept", "share of steps", "Completions that parsed without a defect.", 1
    ),
    "rollout/equal_groups": Metric(
        "All-equal groups",
        "share of groups",
        "Groups whose rollouts all ended alike. Outcome reward teaches nothing there.",
        1,
    ),
    "reflect/valid": Metric(
        "Valid reflections", "share of episodes", "Reflections that gave exactly one value per step.", 1
    ),
    "reflect/final_won": Metric(
        "Last judgement when won",
        "progress, %",
        "Mean P_T on successes; the outcome anchor asks for 100.",
        100,
    ),
    "reflect/final_lost": Metric(
        "Last judgement when lost",
        "progress, %",
        "Mean P_T on failures. Creeping up means that the policy flatters itself.",
        100,
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
        "beta times the gains P_t - P_(t-1), which sum to beta times the last progress.",
    ),
    "reward/alignment": Metric(
        "Alignment",
        "reward per episode",
        "Minus alpha times the distance of online from retrospective progress.",
    ),
    "reward/format": Metric("Format", "reward per episode", "Penalty for completions that do not parse."),
    "reward/boundary": Metric(
        "Boundary",
        "reward per episode",
        "Penalty for calling it done (100 %) at any step but the last of a success.",
    ),
    "reward/invalid": Metric("Invalid action", "reward per episode", "Penalty for refused actions."),
}

# Less telling or self-evident; folded away. Unknown metrics join them, without words.
OTHER: dict[str, Metric] = {
    "rollout/failed_groups": Metric("All-failed groups", "share of groups", "No rollout of the task won.", 1),
    "rollout/score": Metric("Score", "score", "Mean graded outcome.", 1),
    "rollout/return": Metric("Return", "reward per episode", "Environment reward, summed."),
    "rollout/cut_off": Metric(
        "Cut off",
        "share of steps",
        "Completions that the length limit ended: raise it, or the prompt rambles.",
    ),
    "rollout/tokens": Metric("Completion length", "tokens per step", "Mean sampled tokens."),
    "rollout/entropy": Metric("Sampling entropy", "nats per token", "As seen by the sampler."),
    "rollout/errors": Metric("Environment errors", "episodes", "Episodes that the environment broke."),
    "rollout/online": Metric("Online progress", "progress, %", "Mean q_t over all steps.", 100),
    "reflect/tokens": Metric("Reflection length", "tokens", "Mean sampled tokens."),
    "update/skipped": Metric(
        "Skipped mini-batches", "count", "Not applied: loss or gradient was not finite."
    ),
    "update/distinct_rows": Metric(
        "Distinct rows", "share of samples", "Rows computed; equal ones are computed once.", 1
    ),
    "time/rollout": Metric("Time playing", "seconds", "Rollout and reflection of an iteration."),
    "time/update": Metric("Time updating", "seconds", "Credit and gradient steps of an iteration."),
    "warmup/lr": Metric("Warmup learning rate", "step size", ""),
    "warmup/forward_loss": Metric(
        "Warmup forward loss", "nats per token", "Imitation of actions and progress."
    ),
    "warmup/reflect_loss": Metric("Warmup reflection loss", "nats per token", "Imitation of reflections."),
}

# Shown elsewhere, or the axes themselves.
ELSEWHERE = frozenset(
    {"iteration", "env_steps", "seconds", "rollout/success"}
    | {f"eval/{name}" for name in ("success", "low", "high", "tasks")}
)

QUALITY: dict[str, tuple[str, str]] = {
    "episodes": ("Episodes", "Without those that the environment broke."),
    "covered": ("Covered", "Share of episodes that give a usable series."),
    "covered_success": ("… of successes", ""),
    "covered_failure": ("… of failures", "Where it differs from successes, the rest rests on a selection."),
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
