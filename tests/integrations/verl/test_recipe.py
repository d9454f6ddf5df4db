"""Our settings as verl's: every shipped recipe, what must reach verl, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from repro_rl.config import KlSection, TrainSection, dump_config, parse_config, recipe_names
from repro_rl.config.recipe_files import merged
from repro_rl.errors import ConfigError, DataError, PreflightError
from repro_rl.integrations.verl.launch import check_same_overrides, command_text, prepare_run
from repro_rl.integrations.verl.recipe import (
    checked_for_rows,
    hardware_names,
    load_verl_recipe,
    our_settings,
    verl_recipes,
    verl_settings,
    write_verl_config,
)
from support.verl_cases import CPU_RECIPE

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("hardware", hardware_names())
@pytest.mark.parametrize("name", verl_recipes())
def test_shipped_recipes_are_valid(name, hardware):
    recipe = load_verl_recipe(name, ["train.init=somewhere"], hardware)
    assert parse_config(yaml.safe_load(dump_config(recipe.config))) == recipe.config
    assert recipe.config.train.kl.form == "k3"
    assert {"trainer", "actor_rollout_ref"} <= set(recipe.verl)
    nodes = {"1gpu": (1, 1), "8gpu": (1, 8), "2nodes": (2, 8)}[hardware]
    trainer = recipe.verl["trainer"]
    assert (trainer["nnodes"], trainer["n_gpus_per_node"]) == nodes


def test_the_reference_settings_reach_verl():
    """Group size 8, 16 or 32 groups, lr 1e-6, KL .01 (low variance), clip .2, 150 iterations."""
    for name, groups in (
        ("webshop-qwen2.5-1.5b", 16),
        ("alfworld-qwen2.5-1.5b", 16),
        ("sokoban-qwen3-4b", 32),
    ):
        config = load_verl_recipe(name).config
        settings = verl_settings(config, "model", Path("out"))
        actor, rollout = (settings["actor_rollout_ref"][part] for part in ("actor", "rollout"))
        assert settings["data"]["train_batch_size"] == groups
        assert (rollout["n"], rollout["val_kwargs"]["temperature"]) == (8, 0.4)
        assert (actor["optim"]["lr"], actor["kl_loss_coef"], actor["kl_loss_type"]) == (
            1e-6,
            0.01,
            "low_var_kl",
        )
        assert actor["clip_ratio_low"] == actor["clip_ratio_high"] == 0.2
        assert settings["trainer"]["total_training_steps"] == 150
        assert (config.method.gamma, config.method.omega, config.method.invalid_penalty) == (0.95, 1.0, 0.1)
        assert config.prompt.history == 2
        longest = settings["data"]["max_prompt_length"] + settings["data"]["max_response_length"]
        assert actor["ppo_max_token_len_per_gpu"] >= longest


@pytest.mark.parametrize(
    ("cap", "correction"),
    [
        ("auto", {"rollout_is": "token", "rollout_is_threshold": 2.0}),
        ("3", {"rollout_is": "token", "rollout_is_threshold": 3.0}),
        ("off", {"rollout_is": None}),
    ],
)
def test_importance_weights_of_samples_reach_verl(cap, correction):
    """min(p_trainer / p_sampler, cap) on each token's advantage, as with our vLLM backend."""
    config = load_verl_recipe("sokoban-qwen3-4b", [f"train.importance_cap={cap}"]).config
    assert verl_settings(config, "m", Path("o"))["algorithm"] == {
        "adv_estimator": "grpo",
        "use_kl_in_reward": False,
        "rollout_correction": correction,
    }


REFUSED = {
    "env_steps": "1000",
    "loss": "{name: sapo}",
    "dynamic_sampling": "1",
    "kl.clamp": "5.0",
    "optimizer": "adamw8bit",
    "trackers": "[tensorboard]",
    "callbacks": "[package.module:Class]",
}
MAPPED = {
    "iterations": "7",
    "groups": "8",
    "group_size": "4",
    "temperature": ".9",
    "lr": "2e-6",
    "lr_warmup": "3",
    "betas": "[.8, .9]",
    "weight_decay": ".1",
    "epochs": "2",
    "minibatches": "4",
    "micro_tokens": "50000",
    "clip": ".3",
    "importance_cap": "3.0",
    "kl.form": "k2",
    "kl.coef": ".02",
    "entropy_coef": ".01",
    "grad_clip": ".5",
    "save_every": "3",
    "keep": "4",
    "validate_every": "2",
}
READ_BY_OUR_CODE = {"init", "split", "record_every"}
NOT_USED = {
    "gradient_checkpointing": "true",
    "peer_timeout": "60.0",
    "demos": "somewhere",
    "tracking": "{project: other}",
    "callback_errors": "stop",
}


def test_every_setting_of_training_is_mapped_refused_or_named_as_unused():
    """No setting is dropped in silence."""
    names = {name for name in TrainSection.model_fields if name != "kl"}
    names |= {f"kl.{name}" for name in KlSection.model_fields}
    assert names == {*REFUSED, *MAPPED, *READ_BY_OUR_CODE, *NOT_USED}
    base = verls_own()
    for name, value in MAPPED.items():
        assert verls_own(f"train.{name}={value}") != base, name
    for name, value in NOT_USED.items():
        assert verls_own(f"train.{name}={value}") == base, name
    for name, value in REFUSED.items():
        with pytest.raises(ConfigError, match=rf"train\.{name}"):
            verls_own(f"train.{name}={value}")
    page = (ROOT / "docs" / "verl.md").read_text(encoding="utf-8")
    [row] = [line for line in page.splitlines() if "not used." in line]
    for name in NOT_USED:
        assert f"`train.{name}`" in row


def verls_own(*overrides: str) -> dict[str, Any]:
    """verl's settings of a recipe, without our own section."""
    settings = verl_settings(load_verl_recipe("sokoban-qwen3-4b", overrides).config, "m", Path("o"))
    return {name: value for name, value in settings.items() if name != "repro_rl"}


def test_a_method_without_reflections_reserves_no_tokens_for_them():
    with_judge = verl_settings(load_verl_recipe("sokoban-qwen3-4b").config, "m", Path("o"))["data"]
    without = verl_settings(load_verl_recipe("sokoban-qwen3-4b", ["method=gigpo"]).config, "m", Path("o"))[
        "data"
    ]
    assert (with_judge["max_prompt_length"], without["max_prompt_length"]) == (4096, 2048)


def test_our_section_comes_back_as_it_was(tmp_path):
    recipe = load_verl_recipe(CPU_RECIPE, ["train.init=m"])
    path = write_verl_config(recipe, "m", tmp_path)
    content = yaml.safe_load(path.read_text())
    assert our_settings(content["repro_rl"]) == (recipe.config, tmp_path)
    assert content["defaults"] == ["ppo_trainer", "_self_"]
    assert content["actor_rollout_ref"]["rollout"]["name"] == "repro_rl_cpu"  # the recipe wins
    assert content["actor_rollout_ref"]["rollout"]["n"] == 4  # and ours is kept beside it


def test_recipes_of_ours_and_files_are_taken_too(tmp_path):
    assert load_verl_recipe("sokoban-qwen3").verl == {}
    file = tmp_path / "mine.yaml"
    file.write_text(
        "recipe: sokoban-qwen3\nsettings: {seed: 3, env: {settings: {rows: 7}}}\nverl: {a: {b: 1}}\n"
    )
    recipe = load_verl_recipe(file, ["method=l2"], "1gpu")
    assert (recipe.config.seed, recipe.config.method.name) == (3, "l2")
    assert recipe.config.env.settings["rows"] == 7
    assert recipe.verl["a"] == {"b": 1}
    assert recipe.verl["trainer"]["n_gpus_per_node"] == 1
    assert not set(verl_recipes()) & set(recipe_names())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.kl.form=exact", "train.kl.form=k3"),
        ("method.rehearsal=4", "method.rehearsal=0"),
        ("train.env_steps=1000", "train.env_steps=null"),
    ],
)
def test_what_verl_cannot_do_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_verl_recipe("sokoban-qwen3-4b", [override])


def test_everything_refused_is_named_at_once():
    with pytest.raises(ConfigError) as raised:
        load_verl_recipe(
            "sokoban-qwen3-4b",
            ["train.kl.form=exact", "train.env_steps=1000", "method.rehearsal=4", "policy.lora.rank=8"],
        )
    lines = str(raised.value).splitlines()
    assert len(lines) == 4
    for line, words in zip(
        lines, ("train.kl.form=k3", "method.rehearsal=0", "policy.lora.rank=0", "env_steps=null"), strict=True
    ):
        assert words in line


def test_rows_for_the_supervised_trainer_do_not_depend_on_how_rl_goes():
    ours = ["train.kl.form=exact", "train.env_steps=1000", "method.rehearsal=4"]
    recipe = load_verl_recipe("sokoban-qwen3-4b", ours, check=checked_for_rows)
    assert recipe.config.train.kl.form == "exact"
    with pytest.raises(ConfigError) as raised:
        load_verl_recipe(
            "sokoban-qwen3-4b",
            [*ours, "prompt.context=chat", "prompt.reflect_form=guided", "prompt.think=off"],
            check=checked_for_rows,
        )
    context, form = str(raised.value).splitlines()
    assert "prompt.context=window" in context
    assert "prompt.reflect_form=free" in form


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: sokoban-qwen3\nsetings: {}\n", "did you mean 'settings'"),
        ("- 1\n", "mapping"),
        ("recipe: [\n", "cannot be read as YAML"),
    ],
)
def test_broken_recipe_files_are_named(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_verl_recipe(file)


def test_unknown_names_are_named():
    with pytest.raises(ConfigError, match="did you mean 'sokoban-qwen3-4b'"):
        load_verl_recipe("sokoban-qwen3-4B")
    with pytest.raises(ConfigError, match="did you mean '8gpu'"):
        load_verl_recipe("sokoban-qwen3-4b", [], "8gpus")
    with pytest.raises(ConfigError, match="No config file"):
        load_verl_recipe("absent.yaml")


def test_merging_keeps_what_is_not_replaced():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}, "d": {"e": 5}}) == {
        "a": {"b": 1, "c": 4},
        "d": {"e": 5},
    }


def test_a_run_needs_a_model(tmp_path):
    with pytest.raises(PreflightError, match="--init"):
        prepare_run(load_verl_recipe(CPU_RECIPE), tmp_path)


def test_the_printed_command_can_be_pasted_into_a_shell():
    command = ["python", "-m", "verl", "--config-dir", "/a b", "trainer.logger=['console']"]
    text = command_text(command, {"X": "a b", "Y": "1"})
    assert text == "X='a b' Y=1 python -m verl --config-dir '/a b' 'trainer.logger=['\"'\"'console'\"'\"']'"


def test_other_overrides_of_verl_do_not_continue_a_run(tmp_path):
    check_same_overrides(tmp_path, ["a=1"])  # nothing was begun
    began = ["actor_rollout_ref.actor.optim.lr=1e-4", "trainer.nnodes=2"]
    (tmp_path / "manifest.json").write_text(json.dumps({"verl_overrides": began}))
    check_same_overrides(tmp_path, ["trainer.nnodes=1", "+trainer.new=1", began[0]])
    with pytest.warns(UserWarning, match=r"other memory settings of verl; .* now\.$"):
        check_same_overrides(tmp_path, [*began, "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=4096"])
    for now in ([], ["actor_rollout_ref.actor.optim.lr=1e-5"], [*began, "+algorithm.x=1"]):
        with pytest.raises(
            ConfigError, match=r"other settings of verl: --verl actor_rollout_ref\.actor\.optim"
        ):
            check_same_overrides(tmp_path, now)
    (tmp_path / "manifest.json").write_text(json.dumps({"verl_overrides": 3}))
    with pytest.raises(DataError, match=r"manifest\.json"):
        check_same_overrides(tmp_path, [])
