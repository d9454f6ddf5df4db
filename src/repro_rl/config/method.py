"""The section ``method``: everything in which methods differ."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from repro_rl.credit import CREDIT, CreditSettings
from repro_rl.errors import did_you_mean


class MethodSection(CreditSettings):
    """Rewards, credit, and what is judged and trained.

    The method called ``name`` sets the fields that are not given.
    """

    name: str = Field(
        "repro", description="a method of repro_rl.config.methods; it sets the fields that are not given"
    )
    reflect: bool = Field(True, description="judge every finished episode in a reflection")
    judge: Literal["policy", "reference"] = Field(
        "policy",
        description="whose weights judge: policy: those in training; reference: the frozen warm start",
    )
    reflect_coef: float = Field(1.0, ge=0, description="weight of the reflection loss")
    reflect_share: float = Field(1.0, gt=0, le=1, description="share of reflections trained on")
    judge_temperature: float | None = Field(
        None,
        ge=0,
        description="of the reflections in RL that are not trained on; None: train.temperature",
    )
    rehearsal: int = Field(
        0, ge=0, description="labelled reflections of the demonstrations that every mini-batch also imitates"
    )
    rehearsal_coef: float = Field(1.0, ge=0, description="weight of the loss on rehearsed reflections")
    rehearsal_when: Literal["learning", "always"] = Field(
        "learning",
        description="learning: only where RL trains the judge; always: also beside a frozen judge",
    )

    @property
    def judged_by_reference(self) -> bool:
        """Whether the frozen warm start writes the reflections (decision D26)."""
        return self.reflect and self.judge == "reference"

    @property
    def learns_to_judge(self) -> bool:
        """Whether RL may train the judge; a frozen judge learns from neither reflections nor rehearsal."""
        return self.reflect and self.judge == "policy"

    @property
    def trains_reflections(self) -> bool:
        """Whether reflections are training samples."""
        return self.learns_to_judge and self.reflect_coef > 0

    @property
    def trained_share(self) -> float:
        """Share of the reflections that are training samples, 0..1."""
        return self.reflect_share if self.trains_reflections else 0.0

    @property
    def rehearses(self) -> bool:
        """Whether RL imitates labelled reflections of the demonstrations (decision D25)."""
        needed = self.reflect if self.rehearsal_when == "always" else self.learns_to_judge
        return needed and self.rehearsal > 0

    @field_validator("credit")
    @classmethod
    def _known_credit(cls, value: str) -> str:
        if value not in CREDIT.names():
            raise ValueError(f"Unknown credit rule {value!r}{did_you_mean(value, CREDIT.names())}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> MethodSection:
        if self.shaping == "retrospective" and not self.reflect:
            raise ValueError("method.shaping 'retrospective' needs method.reflect true")
        if self.alignment == "retrospective" and not self.reflect:
            raise ValueError("method.alignment 'retrospective' needs method.reflect true")
        if (self.alignment != "none" or self.shaping == "online") and not self.progress:
            raise ValueError("method.alignment and online shaping need method.progress true")
        return self
