"""Our settings as verl's: one file for both, and which verl setting stands for which of ours.

A verl recipe is a YAML file with three keys: ``recipe`` (a recipe or settings file of ours), ``settings``
(ours on top of it) and ``verl`` (verl's own, which win over what is derived here).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from repro_rl.config import RunConfig, dump_config, load_config, recipes
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.files import write_text
from repro_rl.integrations.verl.data import AGENT, TRAIN_FILE, VALIDATION_FILE
from repro_rl.train.contexts import need_window
from repro_rl.train.run_folder import flatten

_FOLDER = files("repro_rl").joinpath("recipes", "verl")
KEYS = ("recipe", "settings", "verl")  # of a verl recipe
SECTION = "repro_rl"  # our settings inside verl's
PLUGIN = "repro_rl.integrations.verl.plugin"
CONFIG_NAME = "verl"  # verl.yaml in the run folder
KL = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}
NO_DUAL_CLIP = 1e6  # verl bounds the loss of negative advantages at this ratio; we do not


@dataclass(slots=True, frozen=True)
class VerlRecipe:
    """Both sides of a run."""

    config: RunConfig
    verl: dict[str, Any]  # verl's own settings, nested


def verl_recipes() -> list[str]:
    """Names of the verl recipes that ship with the package."""
    return _names(_FOLDER)


def hardware_names() -> list[str]:
    """Names of the hardware files that ship with the package."""
    return _names(_FOLDER.joinpath("hardware"))


def _names(folder: Traversable) -> list[str]:
    return sorted(item.name[: -len(".yaml")] for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_verl_recipe(
    source: str | Path, overrides: list[str] | None = None, hardware: str | Path | None = None
) -> VerlRecipe:
    """Read a verl recipe by name or file; ``overrides`` are ours, ``section.key=value``.

    A plain recipe or settings file of ours is taken too. ``hardware``: a name or a YAML file of verl settings
    alone, under those of the recipe. Raises ConfigError.
    """
    name = str(source)
    if _is_file(name):
        data = _mapping(name, Path(name))
    elif name in verl_recipes():
        data = _mapping(name, _FOLDER.joinpath(f"{name}.yaml"))
    elif name in recipes():
        data = {}
    else:
        known = [*verl_recipes(), *recipes()]
        raise ConfigError(f"Unknown recipe {name!r}{did_you_mean(name, known)} A file must end in .yaml.")
    machine: dict[str, Any] = {}
    if hardware is not None:
        place = str(hardware)
        if not _is_file(place) and place not in hardware_names():
            raise ConfigError(
                f"Unknown hardware {place!r}{did_you_mean(place, hardware_names())} A file must end in .yaml."
            )
        file = Path(place) if _is_file(place) else _FOLDER.joinpath("hardware", f"{place}.yaml")
        machine = _mapping(place, file)
    if "recipe" not in data:
        return VerlRecipe(checked(load_config(name, overrides)), machine)
    for key in data:
        if key not in KEYS:
            raise ConfigError(f"{name}: unknown key {key!r}{did_you_mean(str(key), KEYS)}")
    ours = [
        f"{key}={json.dumps(value)}"
        for key, value in flatten(data.get("settings") or {}).items()
        if key  # an empty mapping flattens to one empty name
    ]
    config = load_config(data["recipe"], [*ours, *(overrides or [])])
    return VerlRecipe(checked(config), merged(machine, data.get("verl") or {}))


def _is_file(name: str) -> bool:
    return Path(name).suffix in {".yaml", ".yml"}


def _mapping(name: str, file: Path | Traversable) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"No config file at {name}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{name} must hold sections (a mapping), not {type(data).__name__}.")
    return data


def checked(config: RunConfig) -> RunConfig:
    """``config``, or ConfigError naming what verl's trainer cannot do."""
    train, method = config.train, config.method
    if train.kl.form == "exact":
        raise ConfigError("train.kl.form is 'exact', which verl cannot compute; use train.kl.form=k3.")
    if method.rehearses:
        raise ConfigError("method.rehearsal is not available in verl; use method.rehearsal=0.")
    if method.judged_by_reference:
        raise ConfigError("method.judge=reference is not available in verl; use method.judge=policy.")
    need_window(config, "The verl integration")
    if train.env_steps is not None:
        raise ConfigError("train.env_steps: verl counts iterations; use train.env_steps=null.")
    return config


def prompt_tokens(config: RunConfig) -> int:
    """Longest prompt of any sample."""
    section = config.prompt
    reflect = config.method.reflect
    return max(section.max_prompt_tokens, section.max_reflect_tokens if reflect else 0)


def answer_tokens(config: RunConfig) -> int:
    """Longest completion of any sample."""
    section = config.prompt
    return max(section.action_tokens, section.reflect_new_tokens if config.method.reflect else 0)


def verl_settings(config: RunConfig, model: str, out: Path) -> dict[str, Any]:
    """verl's settings, nested, that follow from ours. docs/verl.md has the table.

    ``model``: folder or hub name to start from, which is the frozen reference too. ``out``: the run folder.
    """
    train, prompt = config.train, prompt_tokens(config)
    longest = max(train.micro_tokens, prompt + answer_tokens(config))
    kl = train.kl.form != "none" and train.kl.coef > 0
    return {
        "data": {
            "train_files": str(out / "data" / TRAIN_FILE),
            "val_files": str(out / "data" / VALIDATION_FILE),
            "train_batch_size": train.groups,
            "max_prompt_length": prompt,
            "max_response_length": answer_tokens(config),
            "shuffle": False,  # the file is in the order of play
            "validation_shuffle": False,
            "filter_overlong_prompts": False,
            "dataloader_num_workers": 0,
        },
        "actor_rollout_ref": {
            "model": {"path": model},
            "actor": {
                "strategy": "fsdp2",
                "use_dynamic_bsz": True,
                "ppo_max_token_len_per_gpu": longest,
                "ppo_mini_batch_size": train.groups // train.minibatches,  # the trainer sets it by samples
                "ppo_epochs": train.epochs,
                "shuffle": True,
                "data_loader_seed": config.seed,
                "clip_ratio": train.clip,
                "clip_ratio_low": train.clip,
                "clip_ratio_high": train.clip,
                "clip_ratio_c": NO_DUAL_CLIP,
                "loss_agg_mode": "token-mean",
                "entropy_coeff": train.entropy_coef,
                "use_kl_loss": kl,
                "kl_loss_coef": train.kl.coef,
                "kl_loss_type": KL.get(train.kl.form, "low_var_kl"),
                "optim": {
                    "lr": train.lr,
                    "lr_warmup_steps": train.lr_warmup,
                    "betas": list(train.betas),
                    "weight_decay": train.weight_decay,
                    "clip_grad": train.grad_clip,
                },
                "checkpoint": {"save_contents": ["model", "optimizer", "extra", "hf_model"]},
            },
            "rollout": {
                "name": "vllm",
                "n": train.group_size,
                "temperature": train.temperature,
                "top_p": 1.0,
                "top_k": -1,
                "tensor_model_parallel_size": 1,
                "calculate_log_probs": True,
                "agent": {"default_agent_loop": AGENT},
                "val_kwargs": {
                    "n": 1,
                    "do_sample": config.eval.validation_temperature > 0,
                    "temperature": config.eval.validation_temperature,
                    "top_p": 1.0,
                },
            },
        },
        "critic": {"enable": False},
        "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": False},  # grpo: no critic; see trainer.py
        "trainer": {
            "project_name": "repro_rl",
            "experiment_name": out.name,
            "default_local_dir": str(out / "checkpoints"),
            "total_epochs": 1,
            "total_training_steps": train.iterations,
            "save_freq": train.save_every,
            "test_freq": train.eval_every or -1,
            "val_before_train": True,
            "max_actor_ckpt_to_keep": train.keep,
            "logger": ["console"],
            "nnodes": 1,
            "n_gpus_per_node": 1,
            "use_v1": True,
            "v1": {"trainer_mode": AGENT},
        },
        "ray_kwargs": {
            "ray_init": {"runtime_env": {"env_vars": {"VERL_USE_EXTERNAL_MODULES": PLUGIN}}},
        },
        SECTION: yaml.safe_load(dump_config(config)) | {"out": str(out)},
    }


def merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, ``top`` winning."""
    result = dict(base)
    for key, value in top.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


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
    from repro_rl.config import parse_config

    data = dict(section)
    out = Path(str(data.pop("out")))
    return checked(parse_config(data)), out
