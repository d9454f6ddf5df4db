"""Settings: pydantic models, YAML files, dotted overrides. An unknown key is an error naming the nearest."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from repro_rl.config_base import EnvName as EnvName
from repro_rl.config_base import Section as Section
from repro_rl.config_base import Switch as Switch
from repro_rl.config_vllm import VllmSection
from repro_rl.errors import ConfigError, ReproError, UnknownNameError, did_you_mean
from repro_rl.recipe_files import read_settings as read_settings
from repro_rl.recipe_files import recipes as recipes

API = "api:"  # begins the name of a model behind an API
# Settings whose value, when it is wrong, may be a key: it is not shown.
HOLDERS = ("api.key_env", "api.base_url", "api", "policy.vllm.server.key_env", "policy.vllm.server.url")


class EnvSection(Section):
    """Which environment, and the keyword arguments of ``repro_rl.make``."""

    name: str = "sokoban"
    settings: dict[str, Any] = Field(default_factory=dict)


class TinySection(Section):
    """Shape of the embedded model, used when policy.model is "tiny"."""

    hidden: int = Field(64, gt=0)
    layers: int = Field(2, gt=0)
    heads: int = Field(4, gt=0)
    kv_heads: int = Field(4, gt=0)
    ffn: int = Field(256, gt=0)
    positions: int = Field(1024, gt=15)


class LoraSection(Section):
    """Low-rank adapters (needs ``repro-rl[lora]``): rank 0 trains all weights."""

    rank: int = Field(0, ge=0)
    alpha: float | None = Field(None, gt=0, description="scale is alpha / rank; None: 2 * rank")
    targets: str | list[str] = Field(
        "all-linear", description="names of the layers that get adapters, or all-linear"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapters' input, in training only")


class PolicySection(Section):
    model: str = Field(
        "tiny", description='"tiny", a Hugging Face folder, or a hub name such as Qwen/Qwen3-0.6B'
    )
    backend: Literal["transformers", "vllm", "vllm-server"] = Field(
        "transformers",
        description="what samples: the trained model itself, a vLLM engine in this process, or a vLLM server",
    )
    vllm: VllmSection = VllmSection()
    tiny: TinySection = TinySection()
    lora: LoraSection = LoraSection()
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, ...")
    dtype: str = Field(
        "auto",
        description="a torch dtype, or auto: float32 on CPU; on GPU float32 weights under bfloat16 autocast "
        "to train, bfloat16 weights to evaluate",
    )
    chat: Annotated[Literal["auto", "on", "off"], Switch] = Field(
        "auto", description="use the tokenizer's chat template"
    )
    thinking: bool = Field(False, description="Qwen3's thinking switch")
    attention: str = Field("sdpa", description="attention implementation of transformers")
    packed: bool = Field(
        True, description="on a CPU, Qwen2 and Qwen3: equal beginnings of sequences are computed once"
    )
    threads: int = Field(1, ge=0, description="torch CPU threads; 0 leaves torch's own choice")
    max_batch_tokens: int = Field(32_768, gt=0, description="cells (rows x width) of one generation batch")
    max_cache_tokens: int = Field(
        1_048_576, gt=0, description="chat: tokens of all conversations played at once, each at its longest"
    )


class PromptSection(Section):
    style: Literal["full", "compact"] = "compact"
    think: Annotated[Literal["required", "optional", "off"], Switch] = "off"
    report: Literal["before", "after"] = Field(
        "before", description="where a completion reports progress: before its action or after it"
    )
    context: Literal["window", "chat"] = Field(
        "window",
        description="window: every step has a prompt of its own, with the last steps in it. chat: the "
        "episode is one growing conversation, its reflection the last turn",
    )
    history: int = Field(0, ge=0, description="past observation/action pairs in the prompt")
    demonstrations: int = Field(2, ge=1, description="shown by the prompts that show demonstrations")
    resolution: int = Field(
        10, ge=1, le=50, description="progress written in multiples of this (compact style)"
    )
    template_dir: Path | None = Field(
        None, description="folder whose forward/reflect/demos.jinja replace ours"
    )
    max_prompt_tokens: int = Field(2048, gt=0)
    max_reflect_tokens: int = Field(4096, gt=0)
    max_chat_tokens: int = Field(
        8192, gt=0, description="chat: a whole conversation, its reflection included; at most the model's"
    )
    action_tokens: int = Field(4, gt=0, description="longest forward completion")
    reflect_new_tokens: int = Field(48, gt=0, description="longest reflection completion")


class DemosSection(Section):
    split: str = "train"
    expert: int = Field(40, ge=0, description="solved expert episodes")
    winning: int = Field(
        400, ge=0, description="solved episodes of a noisy expert, labelled, for the reflection only"
    )
    failing: int = Field(1200, ge=0, description="unsolved episodes of a noisy expert, likewise")
    noise: tuple[float, ...] = Field(
        (0.5, 0.75, 1.0), min_length=1, description="shares of random actions, one after another"
    )
    annotator: str = "oracle"


class WarmupSection(Section):
    updates: int = Field(400, gt=0)
    forward_modes: tuple[
        Literal["action", "progress", "demos-plain", "demos-random", "demos-retrospective"], ...
    ] = Field(
        ("action", "progress"),
        description="prompts taught; both, so that one warm start serves every method. demos-…: prompts that "
        "show demonstrations, for the pilot study",
    )
    forward_batch: int = Field(32, ge=0)
    reflect_batch: int = Field(64, ge=0)
    forward_from: int = Field(
        300, ge=0, description="forward samples join after this many reflection-only updates"
    )
    lr: float = Field(3e-3, gt=0)
    lr_warmup: int = Field(10, ge=0, description="updates of linear warm-up")
    lr_end: float = Field(0.1, ge=0, le=1, description="share of lr reached, linearly, at the last update")
    weight_decay: float = Field(0.0, ge=0)
    grad_clip: float = Field(1.0, gt=0)
    target_success: float | None = Field(
        None, ge=0, le=1, description="stop when the validation success, progress prompt, reaches this"
    )
    check_every: int = Field(5, gt=0, description="updates between looks at the validation success")
    save_every: int = Field(100, gt=0)


class MethodSection(Section):
    """Everything in which methods differ. A method name fills it in; any field can be overridden."""

    name: str = "repro"
    progress: bool = Field(True, description="ask for a progress estimate while acting")
    reflect: bool = Field(True, description="judge the finished episode and train on that text too")
    credit: str = Field("gigpo", description="credit rule: gigpo, grpo, rloo, hgpo or a registered name")
    gamma: float = Field(0.5, ge=0, le=1, description="discount of the step part")
    omega: float = Field(1.0, ge=0, description="weight of the step part")
    normalize: Literal["mean", "mean_std"] = "mean"
    episode_baseline: Literal["steps", "trajectories"] = "steps"
    history: int = Field(2, ge=0, description="hgpo: past states that a step group may share")
    level_power: float = Field(
        1.0, ge=0, description="hgpo: a level shared k states deep weighs (k + 1) to this power"
    )
    shaping: str = Field(
        "none",
        description="whose progress gains are paid: none, retrospective, online, oracle, linear or a "
        "registered name",
    )
    beta: float = Field(1.0, description="weight of the progress gain, in reward units")
    shaping_in_episode: bool = Field(False, description="let shaping enter the episode return")
    alignment: str = Field(
        "none",
        description="whose progress the online estimate is compared with: none, retrospective, oracle, "
        "linear or a registered name",
    )
    alpha: float = Field(0.5, ge=0, description="weight of |online - judged|, in reward units")
    align_to: Literal["after", "before"] = "after"
    alignment_in_episode: bool = False
    anchor: Literal["none", "clip", "outcome"] = "clip"
    judge: Literal["policy", "reference"] = Field(
        "policy",
        description="whose weights judge: policy: those in training; reference: the frozen warm start",
    )
    judge_pool: Literal["none", "state"] = Field(
        "none", description="state: judgements of the same state are averaged over the group"
    )
    format_coef: float = Field(0.0, ge=0)
    boundary_coef: float = Field(0.0, ge=0)
    invalid_penalty: float = Field(0.1, ge=0)
    advantage_on: Literal["all", "action", "split"] = Field(
        "all",
        description="tokens the step advantage falls on. split: progress tokens get the alignment, format "
        "and boundary terms, centred in the group; action tokens the step advantage without the alignment",
    )
    reflect_coef: float = Field(1.0, ge=0, description="weight of the reflection loss")
    reflect_share: float = Field(1.0, gt=0, le=1, description="share of reflections trained on")
    judge_temperature: float | None = Field(
        None,
        ge=0,
        description="of the reflections in RL that are not trained on; None: train.temperature",
    )
    rehearsal: int = Field(
        0, ge=0, description="labelled reflections of the demonstrations imitated beside every mini-batch"
    )
    rehearsal_coef: float = Field(1.0, ge=0, description="weight of their loss")

    @property
    def judged_by_reference(self) -> bool:
        return self.reflect and self.judge == "reference"

    @property
    def learns_to_judge(self) -> bool:
        """Whether RL may train the judge: a frozen one learns from neither reflections nor rehearsal."""
        return self.reflect and self.judge == "policy"

    @property
    def trains_reflections(self) -> bool:
        return self.learns_to_judge and self.reflect_coef > 0

    @property
    def rehearses(self) -> bool:
        return self.learns_to_judge and self.rehearsal > 0


class KlSection(Section):
    form: Literal["exact", "k1", "k2", "k3", "none"] = Field(
        "exact", description="k1 only serves to log: as a loss its expected gradient on-policy is zero"
    )
    coef: float = Field(0.01, ge=0)
    clamp: float = Field(10.0, gt=0, description="bound of the sampled estimators' log-ratio")

    @property
    def active(self) -> bool:
        """Whether anything is compared with the reference."""
        return self.form != "none" and self.coef > 0


class TrainSection(Section):
    init: str | None = Field(
        None, description="model to start from: the warm start's folder, or a hub name (no warmup)"
    )
    demos: str | None = Field(
        None, description="demonstrations that method.rehearsal draws from  [default: the warm start's]"
    )
    split: str = "train"
    iterations: int = Field(40, gt=0)
    env_steps: int | None = Field(None, gt=0, description="stop at this many environment steps")
    groups: int = Field(64, gt=0, description="tasks an iteration")
    group_size: int = Field(8, gt=1, description="rollouts a task")
    temperature: float = Field(1.0, gt=0)
    lr: float = Field(5e-4, gt=0)
    lr_warmup: int = Field(10, ge=0, description="iterations of linear warm-up")
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    epochs: int = Field(2, gt=0)
    minibatches: int = Field(4, gt=0)
    micro_tokens: int = Field(16_384, gt=0, description="cells of one forward and backward pass")
    gradient_checkpointing: bool = Field(
        False, description="keep one activation a layer and compute the rest again: less memory, more time"
    )
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit: moments in 8 bits (bitsandbytes, GPU only); also for the warmup"
    )
    clip: float = Field(0.2, gt=0)
    importance_cap: Annotated[Annotated[float, Field(gt=0)] | Literal["auto", "off"], Switch] = Field(
        "auto",
        description="largest weight that corrects a token for the sampler's own probability of it; auto: 2 "
        "with a vLLM backend, off with transformers",
    )
    kl: KlSection = KlSection()
    entropy_coef: float = 0.0
    grad_clip: float = Field(1.0, gt=0)
    save_every: int = Field(5, gt=0)
    keep: int = Field(2, gt=0, description="newest checkpoints kept beside the best")
    eval_every: int = Field(5, ge=0, description="iterations between validations; 0 never")
    record_every: int = Field(1, ge=0, description="iterations between recorded rollouts; 0 never")
    peer_timeout: float = Field(1800.0, gt=0, description="longest wait for another process, in seconds")


class AlarmSection(Section):
    """Each limit: warn when crossed, stop after ``patience`` iterations in a row (0: only warn)."""

    min_entropy: float = Field(0.005, ge=0, description="nats a token")
    max_length_ratio: float = Field(
        0.95, gt=0, description="share of completions cut off at the length limit"
    )
    max_invalid_rate: float = Field(0.8, gt=0)
    max_kl: float = Field(5.0, gt=0)
    max_mismatch: float = Field(0.1, gt=0, description="mean |log-prob difference| of sampler and trainer")
    patience: int = Field(5, ge=0)


class EvalSection(Section):
    split: str = "test"
    tasks: int = Field(500, gt=0)
    rollouts: int = Field(1, gt=0)
    temperature: float = Field(0.4, ge=0)
    seed: int = 1234
    validation_split: str = "validation"
    validation_tasks: int = Field(200, gt=0)
    validation_temperature: float = Field(0.4, ge=0)


class ApiBudget(Section):
    """Limits of one command, answers from the cache included; None is no limit."""

    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0, description="prompt and completion tokens together")
    money: float | None = Field(None, ge=0, description="in the currency of api.prices")


class ApiPrices(Section):
    """Per million tokens, in any currency."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class ApiSection(Section):
    """An OpenAI-compatible server: a model to evaluate, or to annotate demonstrations with."""

    base_url: str = Field("", description="what stands before /chat/completions: http://localhost:8000/v1")
    model: str = ""
    key_env: EnvName = Field(
        None, description="NAME of the environment variable with the API key, such as DEEPSEEK_API_KEY"
    )
    concurrency: int = Field(8, gt=0, description="calls under way at once")
    timeout: float = Field(300.0, gt=0, description="seconds for one call, answer included")
    retries: int = Field(6, ge=0, description="repetitions of a call after an error that may pass")
    backoff: float = Field(1.0, ge=0, description="seconds before the first repetition; doubles, with jitter")
    max_wait: float = Field(
        300.0, ge=0, description="longest wait in seconds; a server's wish beyond it stops"
    )
    give_up: int = Field(20, ge=0, description="calls failing for good in a row that stop the run; 0: never")
    send_seed: bool = Field(False, description="send a seed of its own with every call")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    reasoning_tokens: int = Field(0, ge=0, description="added to the token limit, for models that reason")
    extra: dict[str, Any] = Field(
        default_factory=dict, description="further fields of the request; null takes a field away"
    )
    cache: Path | None = Field(None, description="folder of the answers; without it, in the user's cache")
    budget: ApiBudget = ApiBudget()
    prices: ApiPrices | None = None
    annotate_tries: int = Field(3, gt=0, description="times an unreadable annotation is asked for")
    annotate_temperature: float = Field(0.0, ge=0)
    annotate_tokens: int = Field(4096, gt=0, description="longest annotation")

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if any(sign in value for sign in "@?#"):
            raise ValueError(
                "give an address without a user, a password or a query; keys belong in api.key_env"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def _priced(self) -> ApiSection:
        if self.budget.money is not None and self.prices is None:
            raise ValueError("api.budget.money needs api.prices.prompt and api.prices.completion")
        return self


class RunConfig(Section):
    """All settings of a run; the resolved form is written into the run folder."""

    seed: int = 0
    plugins: list[str] = Field(
        default=[], description="modules imported first; they may register anything by name"
    )
    env: EnvSection = EnvSection()
    policy: PolicySection = PolicySection()
    prompt: PromptSection = PromptSection()
    demos: DemosSection = DemosSection()
    warmup: WarmupSection = WarmupSection()
    method: MethodSection = MethodSection()
    train: TrainSection = TrainSection()
    alarms: AlarmSection = AlarmSection()
    eval: EvalSection = EvalSection()
    api: ApiSection = ApiSection()

    @property
    def needs_reference(self) -> bool:
        """Whether RL keeps the frozen warm start: to compare with (KL) or to judge with."""
        return self.train.kl.active or self.method.judged_by_reference

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        from repro_rl.methods import check_names

        method = self.method
        try:
            check_names(self)
        except ReproError as error:
            raise ValueError(str(error)) from error
        for key, model in (("policy.model", self.policy.model), ("train.init", self.train.init or "")):
            if model.startswith(API):
                raise ValueError(
                    f"{key} is {model!r}: an API model has no weights here, so it cannot be trained; "
                    "evaluate it with 'repro-rl eval api:MODEL', or annotate with demos.annotator=http"
                )
        if method.shaping == "retrospective" and not method.reflect:
            raise ValueError("method.shaping 'retrospective' needs method.reflect true")
        if method.alignment == "retrospective" and not method.reflect:
            raise ValueError("method.alignment 'retrospective' needs method.reflect true")
        if (method.alignment != "none" or method.shaping == "online") and not method.progress:
            raise ValueError("method.alignment and online shaping need method.progress true")
        if method.judged_by_reference and self.prompt.context == "chat":
            raise ValueError(
                "method.judge=reference needs prompt.context=window: a conversation's last turn, the "
                "reflection, is written by the weights that wrote the others."
            )
        judged_at = method.judge_temperature
        every = method.trains_reflections and method.reflect_share == 1
        if every and judged_at not in (None, self.train.temperature):
            raise ValueError(
                f"method.judge_temperature is {judged_at}, train.temperature {self.train.temperature}: what "
                "was sampled at another temperature cannot be trained on; set method.judge_temperature=null, "
                "or method.reflect_share below 1, or method.reflect_coef=0"
            )
        if self.policy.backend == "vllm-server" and not self.policy.vllm.server.url:
            raise ValueError(
                "policy.backend is 'vllm-server' but policy.vllm.server.url is empty; give the address of a "
                "vLLM server, such as http://localhost:8000 (docs/vllm.md)"
            )
        if self.train.groups % self.train.minibatches:
            raise ValueError(
                f"train.groups ({self.train.groups}) must be a multiple of "
                f"train.minibatches ({self.train.minibatches})"
            )
        return self


def parse_config(data: dict[str, Any]) -> RunConfig:
    """Validate nested settings; a method name fills in what the settings leave out. Raises ConfigError."""
    from repro_rl.methods import METHODS

    data = dict(data)
    import_plugins(data.get("plugins", []))
    method = data.get("method", {})
    if isinstance(method, str):
        method = {"name": method}
    if isinstance(method, dict):
        name = method.get("name", "repro")
        try:
            data["method"] = {**METHODS.get(str(name)), **method, "name": name}
        except UnknownNameError as error:
            raise ConfigError(str(error)) from error
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_readable(error)) from error


def import_plugins(modules: Any) -> None:
    """Import the user's modules, which may register names. Raises ConfigError naming the module."""
    for module in modules if isinstance(modules, list) else []:
        try:
            importlib.import_module(str(module))
        except ImportError as error:
            raise ConfigError(
                f"plugins: cannot import {module!r} ({error}); is its folder on PYTHONPATH?"
            ) from error


def load_config(source: str | Path | None, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML file or a built-in recipe by name, apply ``section.key=value`` overrides, validate.

    None means the recipe "sokoban-tiny". Raises ConfigError naming the file, key and nearest known name.
    """
    data = read_settings(source)
    for override in overrides or []:
        key, sign, text = override.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"Override {override!r} is not of the form section.key=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"Override {override!r}: the value is not YAML: {error}") from error
        value = _number(value)
        if key.strip() == "method" and isinstance(value, str):
            key = "method.name"
        if key.strip() == "env.name" and data.get("env", {}).get("name") != value:
            data["env"] = {}  # the recipe's settings belong to its own environment
        target = data
        *parents, last = key.strip().split(".")
        for part in parents:
            if isinstance(target.get(part), str) and part == "method":
                target[part] = {"name": target[part]}
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"Override {override!r}: {part} is a value, not a section.")
        target[last] = value
    return parse_config(data)


def dump_config(config: RunConfig) -> str:
    """The resolved settings as YAML; ``parse_config`` of it gives an equal config."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _number(value: Any) -> Any:
    """YAML reads 5e-4 as text; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _readable(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"]]
        where = ".".join(path)
        if problem["type"] == "extra_forbidden":
            section: type[BaseModel] = RunConfig
            for part in path[:-1]:
                annotation = section.model_fields[part].annotation
                if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                    section = annotation
            lines.append(f"Unknown setting {where!r}{did_you_mean(path[-1], section.model_fields)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            if where in HOLDERS:
                lines.append(f"{where}: {message}")
                continue
            lines.append(f"{where}: {message} (got {problem['input']!r})" if where else message)
    return "\n".join(lines)
