"""Our settings as verl's: one file for both, and which verl setting stands for which of ours.

A verl recipe is a YAML file with three keys: ``recipe`` (a recipe or settings file of ours), ``settings``
(ours on top of it) and ``verl`` (verl's own, which win over what is derived here).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from repro_rl.config import (
    Override,
    PolicySection,
    PromptSection,
    RunConfig,
    TrainSection,
    dump_config,
    load_config,
    parse_config,
    recipe_names,
)
from repro_rl.config.recipe_files import merged, read_named, yaml_names
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.files import read_yaml, write_text
from repro_rl.files.names import CHECKPOINTS
from repro_rl.integrations.verl.data import AGENT, TRAIN_FILE, VALIDATION_FILE
from repro_rl.losses.settings import LossSection
from repro_rl.train import IMPORTANCE_CAP

_FOLDER = files("repro_rl").joinpath("recipes", "verl")
KEYS = ("recipe", "settings", "verl")  # of a verl recipe
SECTION = "repro_rl"  # our settings inside verl's
PLUGIN = "repro_rl.integrations.verl.plugin"
CONFIG_NAME = "verl"  # verl.yaml in the run folder
KL = {"k2": "mse", "k3": "low_var_kl"}
FIXED = Path(__file__).with_name("verl_settings.yaml")  # verl's settings that no setting of ours changes


@dataclass(slots=True, frozen=True)
class VerlRecipe:
    """Both sides of a run."""

    config: RunConfig
    verl: dict[str, Any]  # verl's own settings, nested


def verl_recipes() -> list[str]:
    """Names of the verl recipes that ship with the package."""
    return yaml_names(_FOLDER)


def hardware_names() -> list[str]:
    """Names of the hardware files that ship with the package."""
    return yaml_names(_FOLDER.joinpath("hardware"))


def checked(config: RunConfig) -> RunConfig:
    """``config``, or ConfigError naming everything in it that verl's trainer cannot do, a line each."""
    return _unless([*_text_refusals(config), *_training_refusals(config)], config)


def checked_for_rows(config: RunConfig) -> RunConfig:
    """``config``, or ConfigError naming what rows for verl's supervised trainer cannot hold.

    How the reinforcement learning behind it goes plays no part: that may be our own.
    """
    return _unless([*_text_refusals(config)], config)


def _unless(refusals: Sequence[str], config: RunConfig) -> RunConfig:
    if refusals:
        raise ConfigError("\n".join(refusals))
    return config


def _text_refusals(config: RunConfig) -> Iterator[str]:
    """Prompts and answers that the integration does not have, each as a sentence."""
    try:
        config.prompt.require_window("The verl integration")
    except ConfigError as error:
        yield str(error)
    if config.prompt.reflect_form != "free":
        yield "The verl integration has no guided reflections: set prompt.reflect_form=free."


def _training_refusals(config: RunConfig) -> Iterator[str]:
    """What verl's trainer cannot do, or has settings of its own for, each as a sentence."""
    train, method = config.train, config.method
    if train.kl.form == "exact":
        yield "train.kl.form is 'exact', which verl cannot compute; use train.kl.form=k3."
    elif train.kl.form not in (*KL, "none"):
        yield f"train.kl.form {train.kl.form!r} is our trainer's; in verl use {', '.join(KL)}."
    if train.kl.clamp != type(train.kl).model_fields["clamp"].default:
        yield (
            f"train.kl.clamp is {train.kl.clamp}, but verl bounds the log-ratio of k3 at 20 and no other; "
            "leave train.kl.clamp out."
        )
    if train.optimizer != "adamw":
        yield (
            f"train.optimizer {train.optimizer!r} is our trainer's; use train.optimizer=adamw, and in verl "
            "its own actor_rollout_ref.actor.optim.optimizer and optimizer_impl."
        )
    if method.rehearses:
        yield "method.rehearsal is not available in verl; use method.rehearsal=0."
    if method.judged_by_reference:
        yield "method.judge=reference is not available in verl; use method.judge=policy."
    if method.scores:
        yield (
            f"{method.scores} is not available in verl: its trainer scores no answer a second time. Use a "
            "method without it."
        )
    if train.dynamic_sampling:
        yield "train.dynamic_sampling is not available in verl; use train.dynamic_sampling=0."
    if train.loss != LossSection():
        yield (
            f"train.loss ({train.loss.name}, {train.loss.aggregation}) is our trainer's. Set "
            "train.loss.name=ppo_clip and train.loss.aggregation=token-mean, and in verl its own "
            "actor.policy_loss and actor.loss_agg_mode."
        )
    if config.policy.lora.rank:
        yield (
            "policy.lora is our trainer's; in verl set its own actor_rollout_ref.model.lora_rank, and "
            "policy.lora.rank=0."
        )
    if train.trackers or train.callbacks:
        yield (
            "train.trackers and train.callbacks are our trainer's; leave them empty, and set verl's own "
            "trainer.logger."
        )
    if train.env_steps is not None:
        yield "train.env_steps: verl counts iterations; use train.env_steps=null."


def load_verl_recipe(
    source: str | Path,
    overrides: Sequence[Override] | None = None,
    hardware: str | Path | None = None,
    check: Callable[[RunConfig], RunConfig] = checked,
) -> VerlRecipe:
    """Read a verl recipe by name or file; ``overrides`` are ours, ``section.key=value``.

    A plain recipe or settings file of ours is taken too. ``hardware``: a name or a YAML file of verl settings
    alone, under those of the recipe. ``check``: raises for what the settings cannot be used for. Raises
    ConfigError.
    """
    name = str(source)
    shipped = verl_recipes()
    ours_alone = name in recipe_names() and name not in shipped
    data = {} if ours_alone else read_named(name, _FOLDER, [*shipped, *recipe_names()])
    base: dict[str, Any] = {}
    if hardware is not None:
        base = read_named(str(hardware), _FOLDER.joinpath("hardware"), hardware_names(), "hardware")
    if "recipe" not in data:
        return VerlRecipe(check(load_config(name, overrides)), base)
    for key in data:
        if key not in KEYS:
            raise ConfigError(f"{name}: unknown key {key!r}{did_you_mean(str(key), KEYS)}")
    config = load_config(data["recipe"], overrides, above=(name, _settings(name, data)))
    return VerlRecipe(check(config), merged(base, data.get("verl") or {}))


def _settings(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Our settings in the file ``name``, nested. Raises ConfigError where they are no mapping."""
    settings = data.get("settings") or {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{name}: settings must hold sections (a mapping), not {settings!r}.")
    return settings


def prompt_tokens(section: PromptSection, reflect: bool) -> int:
    """Longest prompt of any sample."""
    return max(section.max_prompt_tokens, section.max_reflect_tokens if reflect else 0)


def answer_tokens(section: PromptSection, reflect: bool) -> int:
    """Longest completion of any sample."""
    return max(section.action_tokens, section.reflect_new_tokens if reflect else 0)


def verl_settings(config: RunConfig, model: str, out: Path) -> dict[str, Any]:
    """verl's settings, nested, that follow from ours. docs/verl.md has the table.

    ``model``: folder or hub name to start from, which is the frozen reference too. ``out``: the run folder.
    """
    train, reflect = config.train, config.method.reflect
    prompt, answer = prompt_tokens(config.prompt, reflect), answer_tokens(config.prompt, reflect)
    actor = _actor(train, config.seed)
    actor["ppo_max_token_len_per_gpu"] = max(train.micro_tokens, prompt + answer)
    fixed = read_yaml(FIXED, dict[str, Any])
    ours = {
        "data": {
            "train_files": str(out / "data" / TRAIN_FILE),
            "val_files": str(out / "data" / VALIDATION_FILE),
            "train_batch_size": train.groups,
            "max_prompt_length": prompt,
            "max_response_length": answer,
        },
        "actor_rollout_ref": {
            "model": {"path": model, **_code_of(config.policy)},
            "actor": actor,
            "rollout": _rollout(train, config.eval.validation_temperature),
        },
        "algorithm": {"rollout_correction": _correction(train.importance_cap)},
        "trainer": _trainer(train, out),
        "ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": {"VERL_USE_EXTERNAL_MODULES": PLUGIN}}}},
        SECTION: yaml.safe_load(dump_config(config)) | {"out": str(out)},
    }
    return merged(fixed, ours)


def _code_of(policy: PolicySection) -> dict[str, Any]:
    """Whether the model's own Python code runs; verl's default is ours."""
    return {"trust_remote_code": True} if policy.trust_remote_code else {}


def _actor(train: TrainSection, seed: int) -> dict[str, Any]:
    """The update: PPO's clip, the KL loss, the optimizer."""
    return {
        "ppo_mini_batch_size": train.groups // train.minibatches,  # the trainer sets it by samples
        "ppo_epochs": train.epochs,
        "data_loader_seed": seed,
        **dict.fromkeys(("clip_ratio", "clip_ratio_low", "clip_ratio_high"), train.clip),
        "entropy_coeff": train.entropy_coef,
        "use_kl_loss": train.kl.active,
        "kl_loss_coef": train.kl.coef,
        "kl_loss_type": KL.get(train.kl.form, "low_var_kl"),
        "optim": {
            "lr": train.lr,
            "lr_warmup_steps": train.lr_warmup,
            "betas": list(train.betas),
            "weight_decay": train.weight_decay,
            "clip_grad": train.grad_clip,
        },
    }


def _rollout(train: TrainSection, validation_temperature: float) -> dict[str, Any]:
    """Sampling, in training and in validation."""
    return {
        "n": train.group_size,
        "temperature": train.temperature,
        "agent": {"default_agent_loop": AGENT},
        "val_kwargs": {"do_sample": validation_temperature > 0, "temperature": validation_temperature},
    }


def _correction(cap: float | str) -> dict[str, Any]:
    """Truncated importance weights of tokens, trainer over sampler; verl's sampler is always another program.

    With or without, verl's ratio is taken to the trainer's own log-prob. Source:
    ``compute_rollout_correction_weights`` of verl 0.9.1.
    """
    if cap == "off":
        return {"rollout_is": None}
    return {"rollout_is": "token", "rollout_is_threshold": IMPORTANCE_CAP if cap == "auto" else float(cap)}


def _trainer(train: TrainSection, out: Path) -> dict[str, Any]:
    """How long, how often what is saved and validated, and where."""
    return {
        "experiment_name": out.name,
        "default_local_dir": str(out / CHECKPOINTS),
        "total_training_steps": train.iterations,
        "save_freq": train.save_every,
        "test_freq": train.validate_every or -1,
        "max_actor_ckpt_to_keep": train.keep,
        "v1": {"trainer_mode": AGENT},
    }


def write_verl_config(recipe: VerlRecipe, model: str, out: Path) -> Path:
    """Write ``out/verl.yaml``: a primary config of Hydra on top of verl's own defaults."""
    content = {
        "defaults": ["ppo_trainer", "_self_"],
        **merged(verl_settings(recipe.config, model, out), recipe.verl),
        "hydra": {"run": {"dir": str(out / "hydra")}, "output_subdir": None},
    }
    path = out / f"{CONFIG_NAME}.yaml"
    write_text(
        path,
        "# Written by 'repro-rl verl train'; verl's settings, ours in the section repro_rl.\n"
        + str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True)),
    )
    return path


def our_settings(section: dict[str, Any]) -> tuple[RunConfig, Path]:
    """The section ``repro_rl`` of verl's settings, back as ours; and the run folder."""
    data = dict(section)
    out = Path(str(data.pop("out")))
    return checked(parse_config(data)), out
