"""All settings of a run, and the rules that join its sections."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, ValidationInfo, model_validator

from repro_rl.config.api import ApiSection, is_api
from repro_rl.config.interplay import without_effect
from repro_rl.config.method import MethodSection
from repro_rl.config.sections import (
    PRIVILEGED_MODES,
    AlarmSection,
    DemosSection,
    EnvSection,
    EvalSection,
    PolicySection,
    PromptSection,
    TrainSection,
    WarmupSection,
    needs_window,
)
from repro_rl.settings import Section, forbid_training

MAX_SEED = 2**63 - 1  # the largest that all libraries take


class RunConfig(Section):
    """All settings of a run; the resolved form is written into the run folder."""

    seed: int = Field(0, ge=0, le=MAX_SEED, description="of everything random in a run")
    plugins: list[str] = Field(
        default=[],
        description="modules imported first; they may register anything by name. Those of a file, its base "
        "and the command line are all imported; [] drops those before it",
    )
    env: EnvSection = EnvSection()
    policy: PolicySection = PolicySection()
    prompt: PromptSection = PromptSection()
    demos: DemosSection = DemosSection()
    warmup: WarmupSection = WarmupSection()
    # Made when a run is, not at import: it looks methods up by name, and an installed package that announces
    # one imports this package for it.
    method: MethodSection = Field(default_factory=MethodSection)
    train: TrainSection = TrainSection()
    alarms: AlarmSection = AlarmSection()
    eval: EvalSection = EvalSection()
    api: ApiSection = ApiSection()

    @property
    def needs_reference(self) -> bool:
        """Whether RL keeps the frozen warm start in memory: for the KL term, to judge, or to score."""
        method = self.method
        return self.train.kl.active or method.judged_by_reference or method.scores_reference

    @property
    def reference_judge(self) -> str | None:
        """What ``train.init`` names, where its frozen weights judge; None: the policy judges itself."""
        return self.train.init if self.method.judged_by_reference else None

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> RunConfig:
        method, loss = self.method, self.train.loss
        for key, model in (("policy.model", self.policy.model), ("train.init", self.train.init or "")):
            if is_api(model):
                raise ValueError(
                    f"{key} is {model!r}: an API model has no weights here, so it cannot be trained. "
                    "Evaluate it with 'repro-rl eval api:MODEL', or annotate with demos.annotator=http"
                )
        if method.judged_by_reference:  # the policy that wrote a conversation also writes its reflection
            self.prompt.require_window("method.judge=reference")
        if self.policy.backend == "vllm-server" and not self.policy.vllm.server.url:
            raise ValueError(
                "policy.backend is 'vllm-server' but policy.vllm.server.url is empty; give the address of a "
                "vLLM server, such as http://localhost:8000 (docs/vllm.md)"
            )
        forbid_training(info, self._contradictions())
        if loss.aggregation == "seq-mean-token-sum-norm" and loss.scale is None:
            loss.scale = float(self.prompt.action_tokens)  # the longest answer
        return self

    def _contradictions(self) -> Iterator[str]:
        """A sentence for each rule of training that the settings break."""
        method, train, prompt = self.method, self.train, self.prompt
        if unread := list(without_effect(method, train)):
            yield "; ".join(unread)
        chat = prompt.context == "chat"
        if method.scores and chat:  # the second scoring has a prompt of its own for every answer
            yield needs_window(method.scores, prompt.context)
        for mode in PRIVILEGED_MODES if chat else ():  # so there is nothing to teach without it
            if mode in self.warmup.forward_modes:
                yield needs_window(f"warmup.forward_modes={mode}", prompt.context)
        longest = method.overlong.max_length
        if method.overlong.factor and longest is not None and longest > prompt.action_tokens:
            yield (
                f"method.overlong.max_length is {longest}, but no answer is longer than prompt.action_tokens "
                f"({prompt.action_tokens}): the whole penalty would never be due"
            )
        if train.loss.name == "gspo" and chat:  # a row has steps of different advantages, and the reflection
            yield (
                f"train.loss.name is gspo, which method {method.name} may set: it has one ratio a row. With "
                "prompt.context=chat a row is a whole episode. Set prompt.context=window, or "
                "train.loss.name=ppo_clip"
            )
        if train.loss.aggregation == "seq-mean-token-sum-norm" and train.loss.scale is None and chat:
            yield (
                f"train.loss.aggregation is {train.loss.aggregation}, which method {method.name} may set. It "
                "divides by the longest row, and with prompt.context=chat a row is a whole episode. Set "
                "train.loss.scale, such as prompt.action_tokens times the steps of an episode"
            )
        judged_at = method.judge_temperature
        every = method.trains_reflections and method.reflect_share == 1
        if every and judged_at not in (None, train.temperature):
            yield (
                f"method.judge_temperature is {judged_at}, train.temperature {train.temperature}: what "
                "was sampled at another temperature cannot be trained on; set method.judge_temperature=null, "
                "or method.reflect_share below 1, or method.reflect_coef=0"
            )
        if train.groups % train.minibatches:
            yield (
                f"train.groups ({train.groups}) must be a multiple of train.minibatches ({train.minibatches})"
            )
