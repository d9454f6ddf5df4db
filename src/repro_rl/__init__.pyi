"""The public names of the package; ``__init__.py`` imports each when it is first used."""

from . import credit as credit, losses as losses
from .config import (
    RunConfig as RunConfig,
    load_config as load_config,
    parse_config as parse_config,
    recipe_names as recipe_names,
    register_method as register_method,
)
from .credit import (
    CreditInputs as CreditInputs,
    CreditSettings as CreditSettings,
    ReflectionChoice as ReflectionChoice,
    RewardSettings as RewardSettings,
    assign_credit as assign_credit,
    composite_rewards as composite_rewards,
    gigpo_advantages as gigpo_advantages,
    grpo_advantages as grpo_advantages,
    hgpo_advantages as hgpo_advantages,
    progress_series as progress_series,
    reflection_advantages as reflection_advantages,
    register_credit as register_credit,
    register_progress as register_progress,
    rloo_advantages as rloo_advantages,
)
from .demos import (
    collect_demos as collect_demos,
    load_demos as load_demos,
    register_annotator as register_annotator,
    save_demos as save_demos,
)
from .envs import TaskPanel as TaskPanel, TextEnv as TextEnv, make as make, register_env as register_env
from .errors import (
    ConfigError as ConfigError,
    DataError as DataError,
    ReproError as ReproError,
    TaskError as TaskError,
)
from .losses.named import register_loss as register_loss
from .policy import (
    Policy as Policy,
    SamplingSettings as SamplingSettings,
    TransformersPolicy as TransformersPolicy,
    build_tiny as build_tiny,
)
from .policy.http import ChatClient as ChatClient, HttpPolicy as HttpPolicy
from .policy.loading.codec import load_codec as load_codec
from .policy.tokens.codec import TextCodec as TextCodec
from .rollout import (
    Actor as Actor,
    EnvPool as EnvPool,
    Judge as Judge,
    PlayOptions as PlayOptions,
    RolloutRequest as RolloutRequest,
    play as play,
    reflect as reflect,
)
from .rollout.context import (
    ChatContext as ChatContext,
    Context as Context,
    ContextLimits as ContextLimits,
    WindowContext as WindowContext,
    make_context as make_context,
)
from .rollout.record import read_trajectories as read_trajectories, write_trajectories as write_trajectories
from .run.callbacks import Callback as Callback, RunInfo as RunInfo, register_callback as register_callback
from .run.loading import LoadedRun as LoadedRun, load_run as load_run
from .run.model_paths import find_model as find_model
from .run.setup import Setup as Setup, set_up as set_up
from .study.conformance import Conformance as Conformance, check_model as check_model
from .study.evaluate import EvalRequest as EvalRequest, evaluate as evaluate
from .study.progress import progress_quality as progress_quality
from .text import (
    PromptBuilder as PromptBuilder,
    StepInputs as StepInputs,
    TextFormat as TextFormat,
    parse_action as parse_action,
    parse_reflection as parse_reflection,
)
from .train import (
    Collation as Collation,
    ImitationData as ImitationData,
    LossSettings as LossSettings,
    PromptModes as PromptModes,
    RLRun as RLRun,
    SampleFormat as SampleFormat,
    TrainedModel as TrainedModel,
    Updater as Updater,
    imitation_data as imitation_data,
    imitation_loss as imitation_loss,
    make_sample as make_sample,
    merge as merge,
    policy_loss as policy_loss,
    reference_values as reference_values,
    run_training as run_training,
    run_warmup as run_warmup,
    task_schedule as task_schedule,
)
from .types import (
    Completion as Completion,
    Group as Group,
    Reflection as Reflection,
    Sample as Sample,
    Status as Status,
    Step as Step,
    TokenKind as TokenKind,
    Trajectory as Trajectory,
    no_completion as no_completion,
)

__version__: str
