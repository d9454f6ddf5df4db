"""The settings of policy losses: the only definition of them and of their defaults. No torch is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from repro_rl.settings import Section

LossName = Literal["ppo_clip", "cispo", "gspo", "sapo", "dppo_tv", "dppo_kl"]
Aggregation = Literal[
    "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-sum"
]

KlEstimator = Literal["k1", "k2", "k3", "k1+", "k3+"]  # of the KL divergence, on the sampled token
SignedForm = Literal["delta", "importance"]  # of self-distillation


@dataclass(slots=True, frozen=True)
class Published:
    """What the source of a loss says of it."""

    about: str  # one line, for `repro-rl list losses`
    settings: Mapping[str, float | None]  # that it reads, with its source's values; others must be None
    aggregation: Aggregation = "token-mean"  # of its source, where that needs no constant


PUBLISHED: dict[str, Published] = {
    "ppo_clip": Published(
        "PPO's clipped ratio of each token (arXiv 1707.06347), with clip-higher and dual clip",
        {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None},
    ),
    "cispo": Published(
        "the clipped ratio only weighs the gradient, so no token loses its own (arXiv 2506.13585)",
        {"clip_low": 10.0, "clip_high": 0.2},
    ),
    "gspo": Published(
        "one ratio an answer, clipped as a whole (arXiv 2507.18071)",
        {"clip_low": 3e-4, "clip_high": 4e-4},
        "seq-mean-token-mean",
    ),
    "sapo": Published(
        "a soft gate in place of the clip (arXiv 2511.20347)",
        {"tau_pos": 1.0, "tau_neg": 1.05},
        "seq-mean-token-mean",
    ),
    "dppo_tv": Published(
        "tokens are masked by the total variation between the policies (arXiv 2602.04879)",
        {"clip_low": 0.15, "clip_high": 0.15, "ratio_cap": 20.0},
    ),
    "dppo_kl": Published(
        "tokens are masked by the KL divergence between the policies (arXiv 2602.04879)",
        {"clip_low": 0.05, "clip_high": 0.05, "ratio_cap": 20.0},
    ),
}
GATE_BETA = 5.0  # of gated self-distillation
OWN = ("clip_low", "clip_high", "dual_clip", "ratio_cap", "tau_pos", "tau_neg")


class LossSection(Section):
    """The policy loss of a sampled token, and how token losses become one number."""

    name: LossName = Field("ppo_clip", description="the loss, see docs/credit.md")
    clip_low: float | None = Field(
        None, ge=0, description="lower bound is 1 - this; None: as published (ppo_clip: train.clip)"
    )
    clip_high: float | None = Field(
        None, ge=0, description="upper bound is 1 + this; None: as published (ppo_clip: train.clip)"
    )
    dual_clip: float | None = Field(
        None, gt=1, description="ppo_clip: most that a negative advantage counts, as a ratio; None: no bound"
    )
    ratio_cap: float | None = Field(None, gt=0, description="dppo: largest ratio; None: 20")
    tau_pos: float | None = Field(None, gt=0, description="sapo: temperature of positive advantages; None: 1")
    tau_neg: float | None = Field(None, gt=0, description="sapo: of the others; None: 1.05")
    aggregation: Aggregation = Field(
        "token-mean",
        description="how token losses are averaged; seq is a row: with window prompts a step, in a chat an "
        "episode",
    )
    scale: float | None = Field(
        None, gt=0, description="divisor of seq-mean-token-sum-norm, a constant; None: prompt.action_tokens"
    )

    @model_validator(mode="after")
    def _consistent(self) -> LossSection:
        reads = PUBLISHED[self.name].settings
        for field in OWN:
            if getattr(self, field) is not None and field not in reads:
                users = ", ".join(name for name, loss in PUBLISHED.items() if field in loss.settings)
                raise ValueError(
                    f"the loss {self.name!r} does not use {field} (only {users}); set it to null"
                )
        if self.aggregation != "seq-mean-token-sum-norm" and self.scale is not None:
            raise ValueError(f"scale has no effect with aggregation {self.aggregation!r}; set it to null")
        if self.clip_low is not None and self.clip_low > 1 and self.name in ("ppo_clip", "gspo"):
            raise ValueError(f"clip_low is {self.clip_low}, but a ratio is never below 0; give at most 1")
        return self

    def values(self, clip: float | None = None) -> dict[str, float | None]:
        """What the loss reads, as given or else as published; ``clip``: the bounds of ppo_clip left open."""
        values = dict(PUBLISHED[self.name].settings)
        if clip is not None and self.name == "ppo_clip":
            values |= {"clip_low": clip, "clip_high": clip}
        return values | {field: given for field in values if (given := getattr(self, field)) is not None}


class DistillSection(Section):
    """Self-distillation: the policy imitates itself as it would act with more in its prompt."""

    coef: float = Field(0.0, ge=0, description="weight of the loss; 0: none")
    form: Literal["gated", SignedForm] = Field(
        "gated",
        description="gated: raises tokens only (SDAR, SEED). delta, importance: signed (OPID), so it may "
        "lower them",
    )
    gate_beta: float | None = Field(None, gt=0, description="gated: slope of the gate; None: 5")
    clip: float | None = Field(None, gt=0, description="signed: bound of a token's weight; None: no bound")
    text: Literal["reflection", "values"] = Field(
        "reflection",
        description="what the teacher's prompt also holds: the reflection as written, or its values P_1..P_T",
    )
    on: Literal["all", "won"] = Field("all", description="episodes that are distilled")

    @property
    def slope(self) -> float:
        """Of the gate: as given, else as published."""
        return GATE_BETA if self.gate_beta is None else self.gate_beta

    @model_validator(mode="after")
    def _consistent(self) -> DistillSection:
        if self.form == "gated" and self.clip is not None:
            raise ValueError("method.distill.clip bounds the signed forms; 'gated' has no such bound")
        if self.form != "gated" and self.gate_beta is not None:
            raise ValueError(f"method.distill.gate_beta has no effect with form {self.form!r}")
        return self
