"""Settings: sections, recipes, overrides, plug-ins and methods.

An unknown setting is an error that names the nearest one.
"""

from repro_rl.config.api import API, ApiBudget, ApiPrices, ApiSection, is_api
from repro_rl.config.loading import Override, load_config, load_run_config
from repro_rl.config.method import MethodSection
from repro_rl.config.methods import METHODS, register_method
from repro_rl.config.parsing import check_trainable, dump_config, import_plugins, parse_config
from repro_rl.config.recipe_files import read_settings, recipe_names
from repro_rl.config.run import RunConfig
from repro_rl.config.sections import (
    BETAS,
    AlarmSection,
    DemosSection,
    EnvSection,
    EvalSection,
    KlSection,
    LoraSection,
    PolicySection,
    PromptSection,
    TinySection,
    TrainSection,
    WarmupSection,
)
from repro_rl.config.tracking import TrackingSection
from repro_rl.config.values import env_values
from repro_rl.config.vllm import VllmSection, VllmServerSection
from repro_rl.settings import Section

__all__ = [
    "API",
    "BETAS",
    "METHODS",
    "AlarmSection",
    "ApiBudget",
    "ApiPrices",
    "ApiSection",
    "DemosSection",
    "EnvSection",
    "EvalSection",
    "KlSection",
    "LoraSection",
    "MethodSection",
    "Override",
    "PolicySection",
    "PromptSection",
    "RunConfig",
    "Section",
    "TinySection",
    "TrackingSection",
    "TrainSection",
    "VllmSection",
    "VllmServerSection",
    "WarmupSection",
    "check_trainable",
    "dump_config",
    "env_values",
    "import_plugins",
    "is_api",
    "load_config",
    "load_run_config",
    "parse_config",
    "read_settings",
    "recipe_names",
    "register_method",
]
