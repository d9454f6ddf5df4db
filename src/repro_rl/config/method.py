"""The section ``method``: everything in which methods differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repro_rl.config.not_a_method import unknown_rule
from repro_rl.credit import CREDIT, CreditSettings, reads, unpaid, without_inputs
from repro_rl.credit.sources import reads_lost_only, reads_reflections
from repro_rl.losses.settings import DistillSection
from repro_rl.settings import forbid_training


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
        description="of the reflections in RL that are not trained on; null: train.temperature",
    )
    rehearsal: int = Field(
        0, ge=0, description="labelled reflections of the demonstrations that every mini-batch also imitates"
    )
    rehearsal_coef: float = Field(1.0, ge=0, description="weight of the loss on rehearsed reflections")
    rehearsal_when: Literal["learning", "always"] = Field(
        "learning",
        description="learning: only where RL trains the judge; always: also beside a frozen judge",
    )

    distill: DistillSection = DistillSection()

    @property
    def scores_hindsight(self) -> bool:
        """Whether the credit rule reads log-probs of the answers under hindsight."""
        return "hindsight_log_prob" in reads(self.credit)

    @property
    def scores_reference(self) -> bool:
        """Whether progress is read from the log-probs of the frozen reference."""
        return "progress_advantage" in (self.shaping, self.alignment, self.value_source)

    @property
    def distills(self) -> bool:
        """Whether the policy is also distilled from itself."""
        return self.distill.coef > 0

    @property
    def privileged_modes(self) -> tuple[str, ...]:
        """The modes of ``warmup.forward_modes`` that teach the prompts of these scorings."""
        hindsight = (f"privileged-{self.hindsight}",) if self.scores_hindsight else ()
        teacher = ("privileged-reflection",) if self.distills else ()
        return tuple(dict.fromkeys((*hindsight, *teacher)))

    @property
    def scores(self) -> str:
        """The setting that needs a second scoring of the answers, for messages; "" where none does."""
        needed = {
            f"method.credit={self.credit}": self.scores_hindsight,
            "method.distill": self.distills,
            "the source of progress progress_advantage": self.scores_reference,
        }
        return next((name for name, wanted in needed.items() if wanted), "")

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
    def judges_lost_only(self) -> bool:
        """Whether reflections are read of tasks that no rollout won alone; then no others are written."""
        told = self.scores_hindsight and self.hindsight == "reflection"
        sources = (self.shaping, self.alignment, self.value_source)
        return (
            self.reflect
            and not (self.trains_reflections or self.distills or told)
            and any(map(reads_reflections, sources))
            and all(map(reads_lost_only, sources))
        )

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
            raise ValueError(unknown_rule(value))
        return value

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> MethodSection:
        forbid_training(info, self._contradictions())
        return self

    def _contradictions(self) -> Iterator[str]:
        sources = {"shaping": self.shaping, "alignment": self.alignment, "value_source": self.value_source}
        for name, source in sources.items():
            if reads_reflections(source) and not self.reflect:
                yield f"method.{name} {source!r} needs method.reflect true"
        if self.judge_gate != "none" and self.shaping != "retrospective":
            yield "method.judge_gate weighs retrospective shaping: it needs method.shaping 'retrospective'"
        if self.value_source != "outcome" and "judged" not in reads(self.credit):
            rules = ", ".join(name for name in CREDIT.names() if "judged" in reads(name))
            yield (
                f"method.value_source is {self.value_source!r}, but the credit rule {self.credit!r} has no "
                f"table of state values; rules that have one: {rules}"
            )
        if self.value_source == "online" and not self.progress:
            yield "method.value_source 'online' needs method.progress true"
        if self.distills and not self.reflect:
            yield "method.distill.coef above 0 needs method.reflect true: the reflection is what is told"
        if self.scores_hindsight and self.hindsight == "reflection" and not self.reflect:
            yield "method.hindsight 'reflection' needs method.reflect true"
        if (self.alignment != "none" or self.shaping == "online") and not self.progress:
            yield "method.alignment and online shaping need method.progress true"
        if wrong := [*without_inputs(self), *unpaid(self)]:
            yield "; ".join(wrong)
