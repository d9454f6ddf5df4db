"""What needs verl itself: its own code reads our settings and our data files. Run by ``make verl-smoke``."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("verl")

import torch
from omegaconf import DictConfig, OmegaConf

from repro_rl.cli.app import app
from repro_rl.config import load_config
from repro_rl.integrations.verl.data import sft_rows, task_rows, write_parquet
from repro_rl.integrations.verl.launch import launch_command, prepare_run
from repro_rl.integrations.verl.recipe import hardware_names, load_verl_recipe, our_settings, verl_recipes
from repro_rl.policy.loading.codec import load_codec
from repro_rl.run.setup import set_up
from support.verl_cases import CHAT_TEMPLATE, CPU_RECIPE


def composed(folder: Path) -> DictConfig:
    """verl's whole configuration of a prepared run, as its own program composes it."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(folder), version_base=None):
        return compose("verl", overrides=["hydra.searchpath=[pkg://verl.trainer.config]"])


RECIPES = [*verl_recipes(), CPU_RECIPE]
PAIRS = dict.fromkeys([(r, "8gpu") for r in RECIPES] + [("sokoban-qwen3-4b", h) for h in hardware_names()])


@pytest.mark.parametrize(("name", "hardware"), PAIRS, ids=str)
def test_verl_accepts_what_the_recipes_become(tmp_path, name, hardware):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    # Small data: generated households have other splits than the official games.
    small = {
        "alfworld-qwen2.5-1.5b": ["env.settings.games=40", "eval.validation_split=validation"],
        "webshop-qwen2.5-1.5b": ["env.settings.generated=[600, 0]"],
    }.get(name, [])
    few = ["eval.validation_tasks=4", "train.init=Qwen/Qwen2.5-1.5B-Instruct"]
    recipe = load_verl_recipe(name, [*small, *few], hardware)
    prepare_run(recipe, tmp_path)
    config = composed(tmp_path)
    validate_config(config, need_reference_policy(config), need_critic(config))
    assert need_reference_policy(config)
    assert not need_critic(config)
    assert our_settings(OmegaConf.to_container(config.repro_rl))[0] == recipe.config
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert actor.clip_ratio_c == 1e6
    assert config.algorithm.rollout_correction.rollout_is == "token"
    assert config.algorithm.rollout_correction.rollout_is_threshold == 2.0
    assert tuple(actor.optim.betas) == recipe.config.train.betas
    assert actor.optim.clip_grad == recipe.config.train.grad_clip
    assert config.actor_rollout_ref.rollout.n == recipe.config.train.group_size
    assert config.trainer.v1.trainer_mode == "repro_rl"


def test_the_plugin_registers_trainer_and_agent_loop():
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.trainer.ppo.v1 import get_trainer_cls

    import repro_rl.integrations.verl.plugin  # noqa: F401

    assert get_trainer_cls("repro_rl").__name__ == "ReproTrainer"
    assert _agent_loop_registry["repro_rl"]["_target_"].endswith("ReproAgentLoop")


def test_verls_dataset_reads_the_task_files(warm, tmp_path):
    from verl.utils.dataset.rl_dataset import RLHFDataset

    sizes = ["method.rehearsal=0", "train.groups=4", "train.iterations=2"]
    rows, _ = task_rows(set_up(load_config(None, [*warm.settings, *sizes])))
    write_parquet(tmp_path / "train.parquet", rows)
    settings = OmegaConf.create({"filter_overlong_prompts": False, "cache_dir": str(tmp_path)})
    tokenizer = load_codec(warm.model).tokenizer
    dataset = RLHFDataset(str(tmp_path / "train.parquet"), tokenizer, settings)
    assert [dataset[i]["task"] for i in range(8)] == [row["task"] for row in rows]
    assert dataset[3]["index"] == 3
    assert dataset[5]["group"] == 1


def test_verls_supervised_dataset_trains_on_the_target_alone(warm, tmp_path):
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    rows = sft_rows(set_up(load_config(None, warm.settings)), warm.demos)
    write_parquet(tmp_path / "sft.parquet", rows)
    text = load_codec(warm.model)
    text.tokenizer.chat_template = CHAT_TEMPLATE
    dataset = MultiTurnSFTDataset(
        str(tmp_path / "sft.parquet"),
        text.tokenizer,
        {"pad_mode": "no_padding", "ignore_input_ids_mismatch": True, "max_length": 256},
    )
    assert len(dataset) == len(rows)
    reflections = [i for i, row in enumerate(rows) if row["kind"] == "reflect"]
    for index in (0, len(rows) // 4, *reflections[:3], reflections[-1]):
        sample = dataset[index]
        trained = sample["input_ids"][sample["loss_mask"].bool()]
        target = rows[index]["messages"][1]["content"]
        assert tuple(trained.tolist()) == text.encode_target(target)
        assert isinstance(trained, torch.Tensor)


def test_the_command_is_verls_own_program(warm, tmp_path):
    from typer.testing import CliRunner

    import repro_rl.cli.commands  # noqa: F401  adds the commands

    out = tmp_path / "run"
    arguments = ["verl", "train", "-c", str(CPU_RECIPE), "--init", str(warm.run), "-o", str(out)]
    done = CliRunner().invoke(app, [*arguments, "-m", "gigpo", "--prepare"])
    assert done.exit_code == 0, done.output
    assert "-m verl.trainer.main_ppo" in done.output
    command, variables = launch_command(out.resolve(), ["trainer.val_only=true"])
    assert command[-3:] == ["--config-name", "verl", "trainer.val_only=true"]
    assert variables["VERL_PLATFORM"] == "repro_rl_cpu"
    config = composed(out.resolve())
    assert Path(config.actor_rollout_ref.model.path) == warm.model.resolve()
    assert config.repro_rl.method.credit == "gigpo"
    # another method, the same folder
    again = CliRunner().invoke(app, [*arguments, "-m", "repro", "--prepare"])
    assert again.exit_code != 0
