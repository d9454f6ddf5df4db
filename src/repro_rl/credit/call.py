"""Calling a credit rule, in whichever form it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.rules import CREDIT, asked_for, rule_owner
from repro_rl.credit.settings import CreditSettings
from repro_rl.errors import ConfigError, named_failure


def call_rule(name: str, inputs: CreditInputs, settings: CreditSettings) -> dict[str, Any]:
    """What the rule called ``name`` returns, as a mapping with "advantages".

    Advantages [N], which only a mapping may have, stay one a trajectory: ``per_step`` spreads them. Raises
    UnknownNameError for an unknown rule, ConfigError for a mapping without advantages, a missing input, and
    whatever the rule itself raises.
    """
    rule = CREDIT.get(name).function
    further = asked_for(name, rule)
    own = settings.credit_settings if settings.credit == name else {}
    inputs.rule = name
    with named_failure(rule_owner(name)):
        if further is None:
            answer = rule(inputs, settings, **own)
        else:
            more = {
                item: inputs.need(item)
                for item, demanded in further.items()
                if demanded or getattr(inputs, item) is not None
            }
            rewards, anchors = inputs.need("rewards"), inputs.anchors
            if anchors is None:
                anchors = [[None] * len(row) for row in rewards]
            answer = rule(rewards, inputs.groups, anchors, settings, inputs.episode_returns, **more, **own)
    if not isinstance(answer, Mapping):
        return {"advantages": answer}
    if "advantages" not in answer:
        raise ConfigError(f"The credit rule {name!r} returned no 'advantages', only {', '.join(answer)}.")
    return {**answer, "advantages": PerTrajectory.of(answer["advantages"])}


class PerTrajectory(list[float]):
    """Advantages [N] of a rule that gives one a trajectory."""

    @classmethod
    def of(cls, advantages: Any) -> Any:
        """``advantages`` marked as such where it holds numbers, else as it is."""
        if isinstance(advantages, list) and advantages and all(isinstance(v, Real) for v in advantages):
            return cls(advantages)
        return advantages

    def per_step(self, lengths: Sequence[int]) -> list[list[float]]:
        """N lists of T_n."""
        return [[value] * length for value, length in zip(self, lengths, strict=True)]
