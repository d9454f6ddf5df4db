"""Progress Advantage (arXiv 2606.26080): how much more likely the policy makes a step than its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from repro_rl.credit.baseline import check_choice, finite_array, length_of
from repro_rl.credit.checks import check_log_probs
from repro_rl.errors import ConfigError

TokenReduction = Literal["mean", "sum", "last", "min", "max"]
StepReduction = Literal["mean", "sum", "last", "min", "max", "bottom10"]


def _bottom(values: Sequence[float]) -> float:
    """The mean of the lowest tenth, at least one."""
    lowest = sorted(values)[: max(1, math.ceil(0.1 * len(values)))]
    return sum(lowest) / len(lowest)


REDUCE: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: sum(values) / len(values),
    "sum": lambda values: float(sum(values)),
    "last": lambda values: values[-1],
    "min": min,
    "max": max,
    "bottom10": _bottom,
}


def progress_advantages(
    log_prob: Sequence[Sequence[float]],
    ref_log_prob: Sequence[Sequence[float]],
    *,
    beta: float = 1.0,
    tokens: TokenReduction = "mean",
    steps: StepReduction = "mean",
) -> dict[str, Any]:
    """``beta * (f(log pi) - f(log pi_ref))`` of each step of one trajectory, [T]; 0 without tokens.

    log_prob, ref_log_prob: T lists of token log-probs. The function f (``tokens``) reduces a step's tokens,
    and ``steps`` the trajectory's steps to one score. There "bottom10" is the mean of the lowest tenth. The
    factor beta only scales. Which f is best differs by model. Assumption: the policy was trained by RL from
    the reference, and is near it.
    Source: the public code, agreed with on 20 cases. Decided here: as a source of progress, P_t is the
    running sum, so the gain of a step is its advantage.
    Returns "step_advantages" [T] and "trajectory_score" (None without a step). Raises ConfigError where the
    two have other numbers of steps or tokens, for what is no finite number, and for an unknown reduction.
    """
    check_choice("tokens", tokens, get_args(TokenReduction))
    check_choice("steps", steps, get_args(StepReduction))
    finite_array("progress_advantage: beta", [beta])
    for name, rows in (("log_prob", log_prob), ("ref_log_prob", ref_log_prob)):
        for t in range(length_of(f"progress_advantage: {name}", rows)):
            length_of(f"progress_advantage: {name} of step {t + 1}", rows[t])
    if len(log_prob) != len(ref_log_prob):
        raise ConfigError(
            f"progress_advantage: {len(log_prob)} steps of the policy and {len(ref_log_prob)} of the "
            "reference; give one of each a step."
        )
    for name, rows in (("log_prob", log_prob), ("ref_log_prob", ref_log_prob)):
        finite_array(name, (value for row in rows for value in row))
        check_log_probs("progress_advantage", name, rows)
    values = []
    for t, (own, other) in enumerate(zip(log_prob, ref_log_prob, strict=True), start=1):
        if len(own) != len(other):
            raise ConfigError(
                f"progress_advantage: step {t} has {len(own)} log-probs of the policy and {len(other)} of "
                "the reference; give one of each a token."
            )
        values.append(beta * (REDUCE[tokens](own) - REDUCE[tokens](other)) if len(own) else 0.0)
    return {"step_advantages": values, "trajectory_score": REDUCE[steps](values) if values else None}
