"""Alarms: limits on the metrics of training; crossing one warns, and stops when it lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from repro_rl.config import AlarmSection


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
            warnings.append(f"{skipped:.0f} mini-batches skipped for a non-finite loss or gradient")
            if streak >= max(self.limits.patience, 1):
                return warnings, f"{warnings[-1]}, {streak} iterations in a row"
        for name, side, limit, advice in self._rules():
            value = metrics.get(name)
            if value is None:
                continue
            crossed = value < limit if side == "below" else value > limit
            streak = self._count(name, crossed)
            if crossed:
                warnings.append(f"{name} = {value:.4g} is {side} {limit:g}: {advice}")
                if self.limits.patience and streak >= self.limits.patience:
                    return warnings, f"{warnings[-1]} ({streak} iterations in a row)"
        return warnings, None

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
            ("rollout/cut_off", "above", limits.max_length_ratio, "completions run into the length limit"),
            ("rollout/invalid_rate", "above", limits.max_invalid_rate, "nearly every action is refused"),
            ("update/kl", "above", limits.max_kl, "the policy has left the reference; raise train.kl.coef"),
            ("update/mismatch", "above", limits.max_mismatch, "sampler and trainer disagree on log-probs"),
        )

    def _count(self, name: str, crossed: bool) -> int:
        self.streak[name] = self.streak.get(name, 0) + 1 if crossed else 0
        return self.streak[name]
