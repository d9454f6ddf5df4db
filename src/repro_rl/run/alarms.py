"""Alarms: limits on the metrics of training; crossing one warns, and stops when it lasts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repro_rl.config import AlarmSection
from repro_rl.errors import counted
from repro_rl.rollout.act import NO_COMPLETION
from repro_rl.rollout.counts import common

REPEATED_EVERY = 10  # iterations between two warnings of the same state, such as that nothing is won
FEW_REFLECTIONS = 0.1  # share of valid ones below which the judge teaches next to nothing
NEARLY_ALL = 0.999

CUT_OFF = "completions run into the length limit; raise prompt.action_tokens to an answer with its tags"


def evaluation_alarms(result: Mapping[str, Any]) -> list[str]:
    """What makes the figures of an evaluation meaningless, each as a sentence.

    ``result``: what ``repro_rl.study.evaluate`` returns.
    """
    episodes, broken = result["episodes"], int(result["errors"])
    alarms = []
    reasons, count = Counter(result["error_reasons"]), broken  # the reasons are the commonest alone
    if result["api"] is not None:  # what its server failed at is reported with its costs
        unanswered = {text: n for text, n in reasons.items() if text.startswith(NO_COMPLETION)}
        count -= int(result.get("unanswered", sum(unanswered.values())))
        reasons = Counter({text: n for text, n in reasons.items() if text not in unanswered})
    if count > 0:
        why = f": {common(reasons)}" if reasons else ""  # none where the server's fill the list
        alarms.append(f"{count} of {episodes} episodes broke off and count as not won{why}.")
    if broken == episodes:
        return [*alarms, "No episode was played to its end, so the success says nothing."]
    if result["invalid_rate"] >= NEARLY_ALL:
        alarms.append("Every action was impossible: does the model know this environment and its prompts?")
    if result["format_rate"] <= 1 - NEARLY_ALL:
        alarms.append(
            "No answer had the form that prompts ask for: was the model taught these prompts (prompt.style, "
            "prompt.think), and do its answers fit prompt.action_tokens?"
        )
    return alarms


def warmup_alarm(successes: Sequence[float], tasks: int) -> str | None:
    """A sentence on a warm start that no validation saw win; ``tasks``: of a validation. None without one."""
    if not successes or max(successes) > 0:
        return None
    count = len(successes)
    which = "its only validation" if count == 1 else f"all {count} validations"
    return (
        f"The warm start never won: success 0 in {which} on {counted(tasks, 'task')}. RL "
        "learns little from it; give warmup.updates or demos.expert more, or take easier tasks."
    )


def _states(metrics: Mapping[str, float]) -> tuple[tuple[str, bool, str], ...]:
    """(state that is warned of but stops nothing, whether it holds, advice)."""
    return (
        (
            "no episode was won",
            metrics.get("rollout/success") == 0,
            "only shaped rewards teach anything; train the warmup longer, or take easier tasks",
        ),
        (
            "hardly a reflection was valid",
            metrics.get("reflect/valid", 1.0) < FEW_REFLECTIONS,
            "episodes without one get no reward from it, and no self-distillation; teach reflections longer "
            "in the warmup, or set prompt.reflect_form=guided",
        ),
    )


@dataclass(slots=True)
class Alarms:
    """Counts how many iterations in a row each limit was crossed."""

    limits: AlarmSection
    streak: dict[str, int] = field(default_factory=dict)  # iterations in a row, by metric

    def check(self, metrics: dict[str, float]) -> tuple[list[str], str | None]:
        """Warnings for this iteration, and the reason to stop (None: train on).

        Numbers that are not finite come first: they make the other metrics meaningless.
        """
        warnings: list[str] = []
        broken = [k for k, v in metrics.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken:
            reason = f"{', '.join(broken)} not finite: lower train.lr or train.grad_clip"
            return [reason], reason
        skipped = metrics.get("update/skipped", 0)
        streak = self._count("skipped", skipped > 0)
        if skipped > 0:
            batches = counted(int(skipped), "mini-batch", "mini-batches")
            warnings.append(f"{batches} skipped for a non-finite loss or gradient")
            if self._stops(streak):
                return warnings, f"{warnings[-1]}, {counted(streak, 'iteration')} in a row"
        for name, holds, advice in _states(metrics):
            streak = self._count(name, holds)
            if streak % REPEATED_EVERY == 1:
                warnings.append(f"{name} ({counted(streak, 'iteration')} in a row): {advice}")
        for name, side, limit, advice in self._rules():
            value = metrics.get(name)
            if value is None:
                continue
            crossed = value < limit if side == "below" else value > limit
            streak = self._count(name, crossed)
            if crossed:
                warnings.append(f"{name} = {value:.4g} is {side} {limit:g}: {advice}")
                if self._stops(streak):
                    return warnings, f"{warnings[-1]} ({counted(streak, 'iteration')} in a row)"
        return warnings, None

    def _stops(self, streak: int) -> bool:
        """Whether a limit that was crossed in so many iterations in a row stops the training."""
        return 0 < self.limits.patience <= streak

    def _rules(self) -> tuple[tuple[str, str, float, str], ...]:
        """(metric, side that is wrong, limit, advice)."""
        limits = self.limits
        return (
            (
                "update/entropy",
                "below",
                limits.min_entropy,
                "the policy has become deterministic; lower train.lr",
            ),
            ("rollout/cut_off", "above", limits.max_cut_off, CUT_OFF),
            ("rollout/invalid_rate", "above", limits.max_invalid_rate, "nearly every action is refused"),
            ("update/kl", "above", limits.max_kl, "the policy has left the reference; raise train.kl.coef"),
            ("update/mismatch", "above", limits.max_mismatch, "sampler and trainer disagree on log-probs"),
        )

    def _count(self, name: str, crossed: bool) -> int:
        self.streak[name] = self.streak.get(name, 0) + 1 if crossed else 0
        return self.streak[name]
