"""The sections of a run's settings, but ``method`` and ``api``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from repro_rl.config.tracking import TrackerName, TrackingSection
from repro_rl.config.vllm import VllmSection
from repro_rl.errors import ConfigError
from repro_rl.losses.named import PUBLISHED
from repro_rl.losses.settings import KlEstimator, LossSection
from repro_rl.settings import Section, Switch, forbid_training

BETAS = (0.9, 0.99)  # of AdamW, in the warm-up and, unless set otherwise, in training


class EnvSection(Section):
    """The environment: its name and the keyword arguments of ``repro_rl.make``."""

    name: str = Field("sokoban", description="sokoban, alfworld, webshop, or a registered name")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="keyword arguments of the environment (repro-rl settings NAME)"
    )


class TinySection(Section):
    """Shape of the embedded model, used when policy.model is "tiny"."""

    hidden: int = Field(64, gt=0, description="width of the hidden states")
    layers: int = Field(2, gt=0, description="transformer layers")
    heads: int = Field(4, gt=0, description="attention heads a layer")
    kv_heads: int = Field(4, gt=0, description="key-value heads a layer; heads is a multiple of it")
    ffn: int = Field(256, gt=0, description="width of the feed-forward layers")
    positions: int = Field(1024, gt=15, description="longest prompt and completion together, in tokens")


class LoraSection(Section):
    """Low-rank adapters (needs ``repro-rl[lora]``): rank 0 trains all weights."""

    rank: int = Field(0, ge=0, description="rank of the adapters; 0: none, all weights are trained")
    alpha: float | None = Field(None, gt=0, description="scale is alpha / rank; null: 2 * rank")
    targets: str | list[str] = Field(
        "all-linear", description="names of the layers that get adapters, or all-linear"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapters' input, in training only")


class PolicySection(Section):
    """The model, what samples from it, and on which device and in which dtype it computes."""

    model: str = Field(
        "tiny",
        description='"tiny", a Hugging Face folder, a GGUF file, or a hub name such as Qwen/Qwen3-0.6B',
    )
    backend: Literal["transformers", "vllm", "vllm-server"] = Field(
        "transformers",
        description="the sampler: the trained model itself, a vLLM engine in this process, or a vLLM server",
    )
    vllm: VllmSection = VllmSection()
    tiny: TinySection = TinySection()
    lora: LoraSection = LoraSection()
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda|mps|xpu|npu|hpu|mlu|musa|xla)(:[0-9]+)?$",
        description="auto, cpu, cuda, cuda:1, ...",
    )
    dtype: str = Field(
        "auto",
        description="a torch dtype, or auto: float32 weights to train (on a GPU under bfloat16 autocast), "
        "bfloat16 for frozen ones on a GPU, and on a CPU that multiplies bfloat16 in hardware",
    )
    chat: Annotated[Literal["auto", "on", "off"], Switch] = Field(
        "auto", description="use the tokenizer's chat template"
    )
    thinking: bool = Field(False, description="the chat template's thinking switch, where it has one (Qwen3)")
    attention: str = Field(
        "auto",
        description="attention implementation of transformers, such as sdpa or eager; auto: sdpa where the "
        "model supports it, else eager",
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that a model's folder or hub page brings along; read it first"
    )
    packed: bool = Field(
        True,
        description="on a CPU, Llama, Mistral, Qwen2, Qwen3, SmolLM and their like: common prefixes of "
        "sequences are computed once",
    )
    kernels: Annotated[Literal["auto", "off"], Switch] = Field(
        "auto",
        description="packed engine: decode steps of pretrained-sized models run over kernels that the "
        "machine's C++ compiler builds once; auto: on Linux, where there is one",
    )
    static_cache: Annotated[Literal["auto", "on", "off"], Switch] = Field(
        "auto",
        description="decode over a static KV cache, on a GPU with CUDA graphs; auto: on a GPU, where the "
        "model's attention allows it",
    )
    threads: int = Field(1, ge=0, description="torch CPU threads; 0 leaves torch's own choice")
    max_batch_tokens: int = Field(32_768, gt=0, description="cells (rows x width) of one generation batch")
    max_cache_tokens: int = Field(
        1_048_576,
        gt=0,
        description="chat: tokens of all concurrent conversations, each at its maximum length; static cache: "
        "cells (rows x width) of one decoding batch",
    )


class PromptSection(Section):
    """The style of prompts and completions, and their limits in tokens."""

    style: Literal["full", "compact"] = Field(
        "compact", description="full: whole texts, for models that read; compact: few words, for tiny models"
    )
    think: Annotated[Literal["required", "optional", "off"], Switch] = Field(
        "off", description="full style: whether an answer begins with a thought"
    )
    report: Literal["before", "after"] = Field(
        "before", description="where a completion reports progress: before its action or after it"
    )
    context: Literal["window", "chat"] = Field(
        "window",
        description="window: every step has its own prompt, with the last steps in it. chat: the "
        "episode is one growing conversation, and its reflection is the last turn",
    )
    history: int = Field(0, ge=0, description="past observation/action pairs in the prompt")
    admissible: Annotated[Literal["on", "tagged", "off"], Switch] = Field(
        "on",
        description="full style: list the actions that are possible now. tagged: as complete answers, for "
        "untrained models that miss the form; off saves their tokens",
    )
    notices: Annotated[Literal["on", "off"], Switch] = Field(
        "off",
        description="full style: say that the last answer had no effect, because it had no action or an "
        "impossible one",
    )
    demonstrations: int = Field(2, ge=1, description="number in a prompt that has demonstrations")
    resolution: int = Field(
        10,
        ge=1,
        le=50,
        description="progress written in multiples of this, a divisor of 100 (compact style)",
    )
    reflect_form: Literal["free", "guided"] = Field(
        "free",
        description="free: a reflection is text like any other. guided: its fixed parts are given, only the "
        "digits of its values are sampled, so it always has T values",
    )
    template_dir: Path | None = Field(None, description="folder whose templates replace those of the package")
    max_prompt_tokens: int = Field(
        2048, gt=0, description="longest prompt of a step, in tokens (docs/prompt-lengths.md)"
    )
    max_reflect_tokens: int = Field(4096, gt=0, description="longest prompt of a reflection, in tokens")
    max_chat_tokens: int = Field(
        8192,
        gt=0,
        description="chat: a whole conversation with its reflection; at most what the model allows",
    )
    action_tokens: int = Field(4, gt=0, description="longest completion that acts, in tokens")
    reflect_new_tokens: int = Field(48, gt=0, description="longest reflection, in tokens")

    @field_validator("resolution")
    @classmethod
    def _divides(cls, value: int) -> int:
        if 100 % value:
            raise ValueError("give a divisor of 100 up to 50, such as 1 or 10")
        return value

    @property
    def thinks(self) -> bool:
        """Whether completions may contain a thought."""
        return self.style == "full" and self.think != "off"

    def require_window(self, what: str) -> None:
        """Raises ConfigError in chat mode, for a feature ``what`` that supports only one prompt a step."""
        if self.context != "window":
            raise ConfigError(needs_window(what, self.context))


def needs_window(what: str, context: str) -> str:
    """The sentence on a feature ``what`` that a ``context`` with one prompt an episode does not have."""
    return f"{what} needs prompt.context=window; it is {context}."


class DemosSection(Section):
    """Which demonstrations are collected, and what labels them."""

    split: str = Field("train", description="tasks that are demonstrated")
    agent: Literal["reader", "planner"] = Field(
        "reader",
        description="the expert: reader decides by what the episode has shown, as a model has to; planner by "
        "the true state",
    )
    expert: int = Field(40, ge=0, description="solved expert episodes")
    mistakes: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.0, 0.1, 0.2, 0.3),
        min_length=1,
        description="shares of executed mistakes in expert episodes, one after another; the expert's answer "
        "is trained in their place",
    )
    wandering: float = Field(
        0.25,
        ge=0,
        description="for each expert episode, that many with the shares of labelled_mistakes, won or not; "
        "imitated likewise",
    )
    winning: int = Field(
        400, ge=0, description="solved episodes of a noisy expert, labelled, for the reflection only"
    )
    failing: int = Field(1200, ge=0, description="unsolved episodes of a noisy expert, for the same use")
    recorded: tuple[str, ...] = Field(
        (), description="folders of runs whose recorded training episodes are labelled too, for the same use"
    )
    episodes: tuple[str, ...] = Field(
        (),
        description="files of episodes of your own (docs/own-episodes.md): won ones are imitated, all are "
        "labelled",
    )
    labelled_mistakes: tuple[float, ...] = Field(
        (0.5, 0.75, 1.0),
        min_length=1,
        description="shares of mistakes (in labelled episodes of a planner: of random actions), one after "
        "another",
    )
    annotator: str = Field(
        "oracle",
        description="what labels the steps with progress: oracle, http, linear, constant, random or a "
        "registered name",
    )

    @property
    def wandering_episodes(self) -> int:
        """How many episodes full of mistakes are imitated."""
        return round(self.wandering * self.expert)


ForwardMode = Literal[
    "action",
    "progress",
    "demos-plain",
    "demos-random",
    "demos-retrospective",
    "privileged-end",
    "privileged-reflection",
]
# Modes of ``warmup.forward_modes`` whose prompts only score answers -> what these prompts also tell.
PRIVILEGED_MODES = {"privileged-end": "end", "privileged-reflection": "reflection"}


class WarmupSection(Section):
    """Stage 1, supervised training on demonstrations."""

    updates: int = Field(400, gt=0, description="optimizer updates, at most")
    forward_modes: tuple[ForwardMode, ...] = Field(
        ("action", "progress"),
        description="prompts that are taught; action and progress, so that one warm start serves every "
        "method. demos-…: prompts with demonstrations, for the pilot study. privileged-…: prompts that hcapo "
        "and self-distill score answers with, which also tell the episode's end or the reflection on it",
    )
    forward_batch: int = Field(32, ge=0, description="samples of actions in an update")
    branches: int = Field(
        4,
        ge=0,
        description="chat: at most that many answers to mistakes are trained of a conversation in an update, "
        "as branches of it. The packed engine computes their common beginning once; without it, as on a GPU, "
        "each is a row",
    )
    held_out: int = Field(
        0,
        ge=0,
        description="episodes, of tasks of their own, that are not trained on: the accuracy of actions on "
        "them is measured at every checkpoint",
    )
    reflect_batch: int = Field(64, ge=0, description="reflections in an update")
    reflect_on_acted: bool = Field(
        False,
        description="chat: beside them, one on every labelled conversation without progress that an update "
        "draws to act; the packed engine computes the conversation once for both",
    )
    forward_from: int = Field(
        300, ge=0, description="updates on reflections alone before samples of actions join"
    )
    lr: float = Field(3e-3, gt=0, description="learning rate after the warm-up")
    lr_warmup: int = Field(10, ge=0, description="updates of linear warm-up")
    lr_end: float = Field(0.1, ge=0, le=1, description="share of lr reached, linearly, at the last update")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    target_success: float | None = Field(
        None, ge=0, le=1, description="stop when the validation success, progress prompt, reaches this"
    )
    check_every: int = Field(5, gt=0, description="updates between measurements of the validation success")
    save_every: int = Field(100, gt=0, description="updates between checkpoints")


class KlSection(Section):
    """The penalty on the KL divergence to the frozen reference model."""

    form: Literal["exact", KlEstimator, "none"] = Field(
        "exact",
        description="exact: over the vocabulary; the others: on the sampled token. k1 is refused: as a "
        "loss, its expected on-policy gradient is zero. k1+, k3+: the same values with the gradient of k2, "
        "which is unbiased",
    )
    coef: float = Field(0.01, ge=0, description="weight of the penalty; 0: none")
    clamp: float = Field(10.0, gt=0, description="bound of the sampled estimators' log-ratio")

    @property
    def active(self) -> bool:
        """Whether the loss needs the reference model."""
        return self.form != "none" and self.coef > 0


class TrainSection(Section):
    """Stage 2, reinforcement learning."""

    init: str | None = Field(
        None,
        description="model to start from: the warm start's folder, a GGUF file or a hub name (no warmup)",
    )
    demos: str | None = Field(
        None, description="demonstrations that method.rehearsal draws from  [default: the warm start's]"
    )
    split: str = Field("train", description="tasks that are trained on")
    iterations: int = Field(40, gt=0, description="rounds of rollouts and updates")
    env_steps: int | None = Field(None, gt=0, description="stop at this many environment steps")
    groups: int = Field(64, gt=0, description="tasks an iteration")
    group_size: int = Field(8, gt=1, description="rollouts a task")
    temperature: float = Field(1.0, gt=0, description="of the rollouts")
    lr: float = Field(5e-4, gt=0, description="learning rate after the warm-up")
    lr_warmup: int = Field(10, ge=0, description="iterations of linear warm-up")
    betas: tuple[float, float] = Field(BETAS, description="of AdamW: decay of its two moments")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    epochs: int = Field(2, gt=0, description="passes over the samples of an iteration")
    minibatches: int = Field(4, gt=0, description="updates a pass; train.groups is a multiple of it")
    micro_tokens: int = Field(
        16_384, gt=0, description="cells (rows x width) of one forward and backward pass"
    )
    gradient_checkpointing: bool = Field(
        False, description="keep one activation a layer and recompute the others: less memory, more time"
    )
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit: moments in 8 bits (bitsandbytes, GPU only); also for the warmup"
    )
    clip: float = Field(0.2, gt=0, description="of ppo_clip, where train.loss sets no bounds of its own")
    loss: LossSection = LossSection()
    dynamic_sampling: int = Field(
        0,
        ge=0,
        description="further rounds of tasks, at most, that take the place of groups whose outcomes are all "
        "equal (DAPO); 0: none",
    )
    importance_cap: Annotated[Annotated[float, Field(gt=0)] | Literal["auto", "off"], Switch] = Field(
        "auto",
        description="upper bound of a token's importance weight, trainer over sampler probability; auto: 2 "
        "with a vLLM backend, and with the bounds of gspo in half precision, else off; it also takes the "
        "ratios of the loss to the trainer's own log-probs",
    )
    kl: KlSection = KlSection()
    entropy_coef: float = Field(0.0, description="weight of the entropy bonus")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    save_every: int = Field(5, gt=0, description="iterations between checkpoints")
    keep: int = Field(2, gt=0, description="newest checkpoints that are kept besides the best")
    validate_every: int = Field(5, ge=0, description="iterations between validations; 0 never")
    record_every: int = Field(1, ge=0, description="iterations between recorded rollouts; 0 never")
    trackers: list[TrackerName] = Field(
        default=[],
        description="where metrics are sent beside metrics.jsonl (docs/trackers.md); also in warmup",
    )
    tracking: TrackingSection = TrackingSection()
    callbacks: list[str] = Field(
        default=[], description="code of yours that is told of the run: package.module:Class, or registered"
    )
    callback_errors: Literal["warn", "stop"] = Field(
        "warn", description="what an exception in a callback does: it is reported, or ends the run"
    )
    peer_timeout: float = Field(1800.0, gt=0, description="longest wait for another process, in seconds")

    def records(self, iteration: int) -> bool:
        """Whether the episodes of an iteration are written down: the first one's, and every n-th one's."""
        return self.record_every > 0 and (iteration % self.record_every == 0 or iteration == 1)

    @model_validator(mode="after")
    def _clip_counts(self, info: ValidationInfo) -> TrainSection:
        own = self.loss.clip_low is not None and self.loss.clip_high is not None
        if self.clip != type(self).model_fields["clip"].default and (own or self.loss.name != "ppo_clip"):
            bounds = f"train.loss.name {self.loss.name!r}" if self.loss.name != "ppo_clip" else "train.loss"
            wrong = f"train.clip is {self.clip}, but {bounds} "
            if self.loss.name not in PUBLISHED:
                wrong += "does not read it; leave it out"
            else:
                wrong += (
                    "has bounds of its own: set train.loss.clip_low and clip_high, and leave train.clip out"
                )
            forbid_training(info, [wrong])
        return self


# Settings of ``train`` that the warmup reads as well.
READ_BY_WARMUP = ("optimizer", "micro_tokens", "gradient_checkpointing")


class AlarmSection(Section):
    """Alarms of training: crossing a limit warns, ``patience`` iterations in a row stop (0: only warn)."""

    min_entropy: float = Field(0.005, ge=0, description="nats a token")
    max_cut_off: float = Field(0.95, gt=0, description="share of completions cut off at the length limit")
    max_invalid_rate: float = Field(0.8, gt=0, description="share of actions that are not possible")
    max_kl: float = Field(5.0, gt=0, description="KL divergence to the reference, nats a token")
    max_mismatch: float = Field(0.1, gt=0, description="mean |log-prob difference| of sampler and trainer")
    patience: int = Field(5, ge=0, description="iterations in a row that stop training; 0: only warn")


class EvalSection(Section):
    """The tasks and sampling with which models and checkpoints are evaluated."""

    split: str = Field("test", description="tasks that checkpoints are evaluated on")
    tasks: int = Field(500, gt=0, description="number of tasks, the first of the split")
    panel: Path | None = Field(
        None,
        description="a file made by 'repro-rl panel export': its tasks, in place of split and tasks",
    )
    rollouts: int = Field(1, gt=0, description="rollouts a task")
    temperature: float = Field(0.4, ge=0, description="of sampling; 0: the most likely token")
    seed: int = Field(1234, ge=0, description="of sampling, whatever the run's seed is")
    validation_split: str = Field("validation", description="tasks that choose the best checkpoint")
    validation_tasks: int = Field(200, gt=0, description="number of tasks of a validation")
    validation_temperature: float = Field(0.4, ge=0, description="of sampling in a validation")
