"""Alarms: silent collapse gets a name, a number and a consequence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from repro_rl.config import AlarmSection


@dataclass(slots=True)
class Alarms:
    """Counts how many iterations in a row each limit was crossed."""

    limits: AlarmSection
    streak: dict[str, int] = field(default_factory=dict)

    def check(self, metrics: dict[str, float]) -> tuple[list[str], str | None]:
        """Warnings for this iteration, and the reason to stop (None to go on)."""
        limits = self.limits
        rules = (
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
        warnings: list[str] = []
        for name, side, limit, advice in rules:
            value = metrics.get(name)
            if value is None:
                continue
            crossed = value < limit if side == "below" else value > limit
            self.streak[name] = self.streak.get(name, 0) + 1 if crossed else 0
            if crossed:
                warnings.append(f"{name} = {value:.4g} is {side} {limit:g}: {advice}")
                if limits.patience and self.streak[name] >= limits.patience:
                    return warnings, f"{warnings[-1]} ({self.streak[name]} iterations in a row)"
        broken = [k for k, v in metrics.items() if isinstance(v, float) and not math.isfinite(v)]
        if broken:
            reason = f"{', '.join(broken)} not finite: lower train.lr or train.grad_clip"
            return [*warnings, reason], reason
        if metrics.get("update/skipped", 0) > 0:
            warnings.append(
                f"{metrics['update/skipped']:.0f} mini-batches skipped for a non-finite loss or gradient"
            )
            self.streak["skipped"] = self.streak.get("skipped", 0) + 1
            if self.streak["skipped"] >= max(limits.patience, 1):
                return warnings, f"{warnings[-1]}, {self.streak['skipped']} iterations in a row"
        else:
            self.streak["skipped"] = 0
        return warnings, None
