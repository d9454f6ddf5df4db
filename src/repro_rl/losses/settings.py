"""The settings of policy losses: the only definition of them and of their defaults. No torch is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repro_rl.errors import UnknownNameError
from repro_rl.function_settings import read_settings_of, unknown_setting
from repro_rl.losses.named import FURTHER, LOSS_NAMES, Aggregation, owner_of
from repro_rl.settings import Section, forbid_training

KlEstimator = Literal["k1", "k2", "k3", "k1+", "k3+"]  # of the KL divergence, on the sampled token
SignedForm = Literal["delta", "importance"]  # of self-distillation


GATE_BETA = 5.0  # of gated self-distillation
OWN = ("clip_low", "clip_high", "dual_clip", "ratio_cap", "tau_pos", "tau_neg")


class LossSection(Section):
    """The policy loss of a sampled token, and how token losses become one number."""

    name: str = Field(
        "ppo_clip",
        description="the loss: ppo_clip, cispo, gspo, sapo, dppo_tv, dppo_kl or a registered name, see "
        "docs/losses.md",
    )
    clip_low: float | None = Field(
        None, ge=0, description="lower bound is 1 - this; null: as published (ppo_clip: train.clip)"
    )
    clip_high: float | None = Field(
        None, ge=0, description="upper bound is 1 + this; null: as published (ppo_clip: train.clip)"
    )
    dual_clip: float | None = Field(
        None, gt=1, description="ppo_clip: most that a negative advantage counts, as a ratio; null: no bound"
    )
    ratio_cap: float | None = Field(None, gt=0, description="dppo: largest ratio; null: 20")
    tau_pos: float | None = Field(None, gt=0, description="sapo: temperature of positive advantages; null: 1")
    tau_neg: float | None = Field(None, gt=0, description="sapo: of the others; null: 1.05")
    aggregation: Aggregation = Field(
        "token-mean",
        description="how token losses are averaged; seq is a row: with window prompts a step, in a chat an "
        "episode",
    )
    scale: float | None = Field(
        None, gt=0, description="divisor of seq-mean-token-sum-norm, a constant; null: prompt.action_tokens"
    )
    settings: dict[str, Any] = Field({}, description="of a registered loss: its further keyword arguments")

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        try:
            LOSS_NAMES.get(value)
        except UnknownNameError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> LossSection:
        reads = LOSS_NAMES.get(self.name).settings
        forbid_training(info, self._contradictions(reads))
        try:
            self._read_further(reads)
        except ValueError as error:
            forbid_training(info, [str(error)])
        return self

    def _contradictions(self, reads: Mapping[str, Any]) -> Iterator[str]:
        """A sentence for each rule of a loss with the settings ``reads`` that is broken."""
        for field in OWN:
            if getattr(self, field) is not None and field not in reads:
                users = ", ".join(name for name in LOSS_NAMES if field in LOSS_NAMES.get(name).settings)
                yield f"the loss {self.name!r} does not use {field} (only {users}); set it to null"
        if self.aggregation != "seq-mean-token-sum-norm" and self.scale is not None:
            yield f"scale has no effect with aggregation {self.aggregation!r}; set it to null"
        if self.clip_low is not None and self.clip_low > 1 and self.name in ("ppo_clip", "gspo"):
            yield f"clip_low is {self.clip_low}, but a ratio is never below 0; give at most 1"

    def _read_further(self, reads: Mapping[str, Any]) -> None:
        """Complete ``settings`` by the defaults of the loss, so that a run records what it used.

        Raises ValueError for one that the loss does not have, or that is of another type.
        """
        function, owner = LOSS_NAMES.get(self.name).function, owner_of(self.name)
        for field in self.settings:
            if field in OWN:
                raise ValueError(f"{FURTHER}: {field} is given as train.loss.{field}")
            if field not in reads:
                further = [field for field in reads if field not in OWN]
                raise ValueError(unknown_setting(owner, FURTHER, field, further))
        if function is not None:
            self.settings.update(read_settings_of(owner, function, FURTHER, self.settings, inputs=OWN))

    def values(self, clip: float | None = None) -> dict[str, Any]:
        """What the loss reads, as given or else as published; ``clip``: the bounds of ppo_clip left open."""
        values = dict(LOSS_NAMES.get(self.name).settings)
        if clip is not None and self.name == "ppo_clip":
            values |= {"clip_low": clip, "clip_high": clip}
        bounds = {field: getattr(self, field) for field in OWN if field in values}
        return values | {field: given for field, given in bounds.items() if given is not None} | self.settings


class DistillSection(Section):
    """Self-distillation: the policy imitates itself as it would act with more in its prompt."""

    coef: float = Field(0.0, ge=0, description="weight of the loss; 0: none")
    form: Literal["gated", SignedForm] = Field(
        "gated",
        description="gated: raises tokens only (SDAR, SEED). delta, importance: signed (OPID), so it may "
        "lower them",
    )
    gate_beta: float | None = Field(None, gt=0, description="gated: slope of the gate; null: 5")
    clip: float | None = Field(None, gt=0, description="signed: bound of a token's weight; null: no bound")
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
