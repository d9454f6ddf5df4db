"""The settings of rewards and credit: the only definition of them and of their defaults.

The section ``method`` of a run (``repro_rl.config``) extends ``CreditSettings``, so a run's settings are
passed to this package as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repro_rl.credit.baseline import EpisodeBaseline, Normalize
from repro_rl.credit.progress_advantage import StepReduction, TokenReduction
from repro_rl.credit.rules import CREDIT, INPUTS, OWN as RULE_SECTION, own_settings, rule_owner
from repro_rl.credit.sources import (
    OWN as SOURCE_SECTION,
    SOURCES,
    Anchor,
    alignable,
    function_of,
    source_owner,
)
from repro_rl.errors import OWN_NAME, UnknownNameError, did_you_mean
from repro_rl.function_settings import read_settings_of
from repro_rl.registry import other_kinds
from repro_rl.settings import Section, forbid_training, forbidding_training

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # reward units; penalties are subtracted
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AnchorKey = Literal["state", "observation"]
NO_SOURCE = ("none", "outcome")  # values of settings that name a source of progress, for none
AdvantageOn = Literal["all", "action", "split"]  # which tokens get the advantage of a step (decision D18)


class GraphGpoSettings(Section):
    """The rule graphgpo."""

    relative_distance: bool = Field(False, description="distance after the step, less that before it, plus 1")
    episode_weight: Weight = Field(1.0, description="weight of the episode part; omega is the step part's")
    success_value: Positive = Field(10.0, description="what a step that ends in success is worth")


class G2poSettings(Section):
    """The rule g2po."""

    success_value: Positive = Field(10.0, description="the value of the goal, in reward units")


class GagpoSettings(Section):
    """The rule gagpo."""

    lam: float = Field(0.95, ge=0, le=1, description="lambda: 0 one-step differences, 1 whole returns")
    success_value: Positive = Field(10.0, description="of judged values: what progress 1 is worth")


class HcapoSettings(Section):
    """The rule hcapo."""

    temperature: Positive = Field(5.0, description="divides the mean log-prob of an action under hindsight")
    clip_low: Weight = Field(0.8, description="lower bound of the ratio")
    clip_high: Weight = Field(1.2, description="upper bound of the ratio")
    smoothing: float | None = Field(None, ge=0, le=1, description="share of the next step's value")
    do_no_harm: bool = Field(True, description="a negative step part of a won trajectory becomes 0")

    @model_validator(mode="after")
    def _ordered(self) -> HcapoSettings:
        if self.clip_low > self.clip_high:
            raise ValueError(
                f"method.hcapo.clip_low ({self.clip_low}) must not exceed clip_high ({self.clip_high})"
            )
        return self


class ProxmoSettings(Section):
    """The rule proxmo."""

    temperature: Positive = Field(0.1, description="of the softmax over similar steps")
    modulate: bool = Field(True, description="weigh the episode part by the task's success")
    alpha: Positive = Field(4.0, description="exponent of the weight")
    target_range: Weight = Field(0.05, description="how far the weight may move from 1")
    beta: Weight | None = Field(None, description="factor of the weight; null: from target_range")
    max_features: int = Field(1024, gt=0, description="most words that texts are compared by")
    fit: Literal["batch", "task"] = Field("batch", description="the texts that words are weighed over")


class MtGrpoSettings(Section):
    """The rule mt_grpo."""

    coef: Weight = Field(1.0, description="weight of the turn rewards")
    epsilon: Positive = Field(1e-4, description="added to the standard deviation")


class ReinforcePpSettings(Section):
    """The rule reinforce_pp."""

    gamma: float = Field(1.0, ge=0, le=1, description="discount from token to token")


class MaxRlSettings(Section):
    """The rule maxrl."""

    guarded: bool = Field(True, description="0 for a task without success and for a trajectory alone in it")
    epsilon: Positive = Field(1e-6, description="added to the mean of the unguarded form")


class ProgressAdvantageSettings(Section):
    """The source of progress progress_advantage."""

    tokens: TokenReduction = Field("mean", description="how the log-probs of a step's tokens become one")
    steps: StepReduction = Field("mean", description="how steps become one score; of repro_rl.credit alone")


class OverlongSettings(Section):
    """The soft penalty on long answers (DAPO)."""

    factor: Weight = Field(0.0, description="the whole penalty, in reward units; 0: none")
    max_length: int | None = Field(None, gt=0, description="tokens of an answer that get the whole penalty")
    buffer: int = Field(0, ge=0, description="tokens before that over which it grows from 0")

    @model_validator(mode="after")
    def _complete(self) -> OverlongSettings:
        if self.factor and self.max_length is None:
            raise ValueError("method.overlong.factor needs method.overlong.max_length")
        if self.max_length is not None and self.buffer > self.max_length:
            raise ValueError(
                f"method.overlong.buffer ({self.buffer}) must not exceed max_length ({self.max_length})"
            )
        return self


class RewardSettings(Section):
    """Which terms the composite reward has, and their weights in reward units (decision D11)."""

    progress: bool = Field(True, description="ask for a progress estimate while acting")
    shaping: str = Field(
        "none",
        description="source of the progress whose gains are rewarded: none, retrospective, online, oracle, "
        "linear, graph, graph_value, graph_or_judged, graph_value_or_judged, judged_where_lost, "
        "progress_advantage or a registered name",
    )
    beta: Weight = Field(1.0, description="weight of the progress gain, in reward units")
    shaping_form: Literal["gain", "raw"] = Field(
        "gain", description="gain: P_t - P_(t-1) is rewarded; raw: P_t itself"
    )
    alignment: str = Field(
        "none",
        description="source of the progress that online estimates are compared with: none, retrospective, "
        "oracle, linear, graph, graph_value, graph_or_judged, graph_value_or_judged, judged_where_lost or a "
        "registered name",
    )
    alpha: Weight = Field(0.5, description="weight of |online - judged|, in reward units")
    align_to: Literal["after", "before"] = Field(
        "after", description="the online estimate is compared with the progress after or before the step"
    )
    anchor: Anchor = Field("clip", description="how the known outcome corrects retrospective values")
    judge_pool: Literal["none", "state"] = Field(
        "none", description="state: judgements of the same state are averaged over the group"
    )
    judge_gate: Literal["none", "graph"] = Field(
        "none",
        description="graph: retrospective shaping is weighed by how well the judge's gains agree with those "
        "of the tasks' state graphs, measured each iteration",
    )
    anchor_key: AnchorKey = Field(
        "state",
        description="what makes two states one: the environment's hidden state, or the text of the "
        "observation, as in the public GiGPO",
    )
    value_gamma: float = Field(
        0.95, ge=0, le=1, description="discount of the state values that the source graph_value counts"
    )
    progress_advantage: ProgressAdvantageSettings = ProgressAdvantageSettings()
    progress_settings: dict[str, dict[str, Any]] = Field(
        {}, description="of registered sources of progress, by their names: their keyword arguments"
    )
    overlong: OverlongSettings = OverlongSettings()
    format_coef: Weight = Field(0.0, description="penalty for a completion with any parse defect")
    boundary_coef: Weight = Field(
        0.0, description="penalty for an online estimate of 100 anywhere but at the last step of a success"
    )
    invalid_penalty: Weight = Field(0.1, description="penalty for an action that the environment refused")

    @field_validator("shaping")
    @classmethod
    def _known_shaping(cls, value: str) -> str:
        return _source(value, ("none", *SOURCES.names()), off="none")

    @field_validator("alignment")
    @classmethod
    def _known_alignment(cls, value: str) -> str:
        own = "it is the estimate itself, which would be compared with itself"
        return _bounded_source(value, "none", "online estimates are compared with fractions 0..1", own)

    @model_validator(mode="after")
    def _shaped(self, info: ValidationInfo) -> RewardSettings:
        if self.shaping_form == "raw" and self.shaping == "none":
            wrong = "method.shaping_form is 'raw', but method.shaping is 'none': there is no progress"
            forbid_training(info, [wrong])
        return self

    def _sources(self) -> tuple[str, ...]:
        """The sources of progress that the settings name."""
        return (self.shaping, self.alignment)

    @model_validator(mode="after")
    def _complete_progress_settings(self, info: ValidationInfo) -> RewardSettings:
        """Complete the settings of the named sources by their defaults: a run records what it used."""
        with forbidding_training(info):
            self._read_progress_settings()
        return self

    def _read_progress_settings(self) -> None:
        given = self.progress_settings
        for name in given:
            _source(name, SOURCES.names(), where=f"{SOURCE_SECTION}: ")
        for name in dict.fromkeys((*given, *(name for name in self._sources() if name in SOURCES.names()))):
            function, section = function_of(SOURCES.get(name)), f"{SOURCE_SECTION}.{name}"
            values = read_settings_of(source_owner(name), function, section, given.get(name, {}))
            if values or name in given:
                given[name] = values


class CreditSettings(RewardSettings):
    """How rewards become advantages.

    A credit rule does not read all of them; ``interplay`` names what would have no effect.
    """

    credit: str = Field("gigpo", description="credit rule, by name: see docs/credit.md")
    credit_settings: dict[str, Any] = Field(
        {}, description="of a registered credit rule: its own keyword arguments"
    )
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
    outcome: Literal["won", "score"] = Field(
        "won", description="what counts as success for rules that ask for it: 0 or 1, or the score 0..1"
    )
    value_source: str = Field(
        "outcome",
        description="what rules with a table of state values take a state's worth from: the outcome, or a "
        "source of progress",
    )
    hindsight: Literal["end", "reflection"] = Field(
        "end", description="hcapo: what the second scoring is told, the last observation or the reflection"
    )
    graphgpo: GraphGpoSettings = GraphGpoSettings()
    g2po: G2poSettings = G2poSettings()
    gagpo: GagpoSettings = GagpoSettings()
    hcapo: HcapoSettings = HcapoSettings()
    proxmo: ProxmoSettings = ProxmoSettings()
    mt_grpo: MtGrpoSettings = MtGrpoSettings()
    maxrl: MaxRlSettings = MaxRlSettings()
    reinforce_pp: ReinforcePpSettings = ReinforcePpSettings()
    shaping_in_episode: bool = Field(False, description="include shaping in the episode return")
    alignment_in_episode: bool = Field(False, description="include the alignment in the episode return")
    advantage_on: AdvantageOn = Field(
        "all",
        description="tokens that get the step advantage. split: progress tokens get the alignment, format "
        "and boundary terms, centred in the group; action tokens the step advantage without the alignment",
    )

    @field_validator("value_source")
    @classmethod
    def _known_value_source(cls, value: str) -> str:
        own = "a state's worth is not taken from what the policy says of itself while it acts"
        return _bounded_source(value, "outcome", "a state's worth is a fraction 0..1", own)

    def _sources(self) -> tuple[str, ...]:
        return (*super()._sources(), self.value_source)

    @model_validator(mode="after")
    def _complete_credit_settings(self, info: ValidationInfo) -> CreditSettings:
        """Complete the rule's own settings by their defaults: a run records what it used."""
        with forbidding_training(info):
            self._read_credit_settings()
        return self

    def _read_credit_settings(self) -> None:
        try:
            rule = CREDIT.get(self.credit).function
        except UnknownNameError:  # told where the rule is needed
            return
        owner = rule_owner(self.credit)
        for name in own_settings(self.credit):
            if name in type(self).model_fields:
                raise ValueError(
                    f"{owner} has a setting {name!r}, which is method.{name} already: read settings.{name} "
                    "in the rule, or choose another name"
                )
        given = self.credit_settings
        given.update(read_settings_of(owner, rule, RULE_SECTION, given, INPUTS))


def _source(value: str, names: Collection[str], *, off: str = "", where: str = "") -> str:
    """``value``. Raises ValueError, which begins with ``where``, when it is none of ``names``.

    ``off``: the one of them that names no source.
    """
    if value in names:
        return value
    if value in NO_SOURCE and off:
        raise ValueError(f"{where}{value!r} is no value of this setting; {off!r} is the one without a source")
    if elsewhere := other_kinds(value, SOURCES.kind):
        raise ValueError(f"{where}{elsewhere}. Known: {', '.join(sorted(names))}. {OWN_NAME}")
    raise ValueError(f"{where}unknown {SOURCES.kind}{did_you_mean(value, names)}. {OWN_NAME}")


def _bounded_source(value: str, off: str, bounds: str, own: str) -> str:
    """``value``, where the online estimates and sources without bounds do not fit.

    ``off``: the value that names no source. ``bounds``, ``own``: why such sources and the estimates do not.
    Raises ValueError.
    """
    names = (off, *(name for name in SOURCES.names() if alignable(name)))
    if value in SOURCES.names() and value not in names:
        why = own if value == "online" else f"its values have no bounds, and {bounds}"
        raise ValueError(f"the source {value!r} cannot stand here: {why}. Choose from: {', '.join(names)}")
    return _source(value, names, off=off)
