"""The settings of rewards and credit: the only definition of them and of their defaults.

The section ``method`` of a run (``repro_rl.config``) extends ``CreditSettings``, so a run's settings are
passed to this package as they are.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from repro_rl.credit.baseline import Normalize
from repro_rl.credit.gigpo import EpisodeBaseline
from repro_rl.credit.sources import SOURCES, Anchor
from repro_rl.errors import did_you_mean
from repro_rl.settings import Section

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # reward units; penalties are subtracted


class RewardSettings(Section):
    """Which terms the composite reward has, and their weights in reward units (decision D11)."""

    progress: bool = Field(True, description="ask for a progress estimate while acting")
    shaping: str = Field(
        "none",
        description="source of the progress whose gains are rewarded: none, retrospective, online, oracle, "
        "linear or a registered name",
    )
    beta: Weight = Field(1.0, description="weight of the progress gain, in reward units")
    alignment: str = Field(
        "none",
        description="source of the progress that online estimates are compared with: none, retrospective, "
        "oracle, linear or a registered name",
    )
    alpha: Weight = Field(0.5, description="weight of |online - judged|, in reward units")
    align_to: Literal["after", "before"] = Field(
        "after", description="the online estimate is compared with the progress after or before the step"
    )
    anchor: Anchor = Field("clip", description="how the known outcome corrects retrospective values")
    judge_pool: Literal["none", "state"] = Field(
        "none", description="state: judgements of the same state are averaged over the group"
    )
    format_coef: Weight = Field(0.0, description="penalty for a completion with any parse defect")
    boundary_coef: Weight = Field(
        0.0, description="penalty for an online estimate of 100 anywhere but at the last step of a success"
    )
    invalid_penalty: Weight = Field(0.1, description="penalty for an action that the environment refused")

    @field_validator("shaping")
    @classmethod
    def _known_shaping(cls, value: str) -> str:
        return _source(value, ("none", *SOURCES.names()))

    @field_validator("alignment")
    @classmethod
    def _known_alignment(cls, value: str) -> str:
        return _source(value, ("none", *(name for name in SOURCES.names() if name != "online")))


class CreditSettings(RewardSettings):
    """How rewards become advantages. A credit rule ignores settings that it does not use."""

    credit: str = Field("gigpo", description="credit rule: gigpo, grpo, rloo, hgpo or a registered name")
    gamma: float = Field(0.5, ge=0, le=1, description="discount of the step part")
    omega: Weight = Field(1.0, description="weight of the step part")
    normalize: Normalize = Field(
        "mean", description="subtract the group's mean, or also divide by its standard deviation"
    )
    episode_baseline: EpisodeBaseline = Field(
        "steps", description="the group's mean return over its steps, or over its trajectories"
    )
    history: int = Field(2, ge=0, description="hgpo: past states that a step group may share")
    level_power: Weight = Field(
        1.0, description="hgpo: a level shared k states deep weighs (k + 1) to this power"
    )
    shaping_in_episode: bool = Field(False, description="include shaping in the episode return")
    alignment_in_episode: bool = Field(False, description="include the alignment in the episode return")
    advantage_on: Literal["all", "action", "split"] = Field(
        "all",
        description="tokens that get the step advantage. split: progress tokens get the alignment, format "
        "and boundary terms, centred in the group; action tokens the step advantage without the alignment",
    )


def _source(value: str, names: tuple[str, ...]) -> str:
    """``value``. Raises ValueError when it is none of ``names``."""
    if value not in names:
        raise ValueError(f"unknown source of progress{did_you_mean(value, names)}")
    return value
