"""Sharded weights: configurations, refusals, and the same result as whole weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import repro_rl
from repro_rl.config import load_config
from repro_rl.dist.sharding import check_sharding, resharding
from repro_rl.errors import ConfigError
from repro_rl.train import run_training
from support.rank_runs import RUN, assert_close_rows, assert_close_weights, launch

CONFIGS = Path(repro_rl.__file__).parent / "recipes" / "accelerate"


LAUNCHED = {"ddp": None, "fsdp2": True, "fsdp2-zero2": False}


def test_every_accelerate_configuration_is_tested():
    assert sorted(path.stem for path in CONFIGS.iterdir()) == sorted(LAUNCHED)


@pytest.mark.parametrize("name", LAUNCHED)
def test_an_accelerate_configuration_is_read_by_accelerate_and_by_us(name, monkeypatch):
    """As ``accelerate launch`` reads it: what it sets for our processes must mean what the file says."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    path = str(CONFIGS / f"{name}.yaml")
    loaded = load_config_from_file(path)
    assert loaded.distributed_type.value == ("MULTI_GPU" if name == "ddp" else "FSDP")
    assert (loaded.num_processes, loaded.mixed_precision) == (8, "no")
    args = launch_command_parser().parse_args(["--config_file", path, "--module", "repro_rl", "train"])
    args, _, _ = _validate_launch_command(args)
    for key in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION"):
        monkeypatch.delenv(key, raising=False)
    for key, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(key, value)
    assert resharding() is LAUNCHED[name]


def test_what_cannot_be_split_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match=r"DeepSpeed.*fsdp2\.yaml"):
        resharding()
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="fsdp_version: 2"):
        resharding()
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(ConfigError, match="fsdp_offload_params"):
        resharding()
    with pytest.raises(ConfigError, match=r"ddp\.yaml"):
        check_sharding(lora_rank=4, optimizer="adamw")
    with pytest.raises(ConfigError, match="adamw8bit cannot be split"):
        check_sharding(lora_rank=0, optimizer="adamw8bit")


@pytest.mark.slow
def test_split_weights_give_what_whole_ones_give(warm, tmp_path):
    """Two processes, each with half of the trained weights, against one process; then continued."""
    settings = [
        *warm.settings,
        *RUN,
        f"train.init={warm.run}",
        "train.iterations=2",
        "train.validate_every=0",
    ]
    run_training(load_config(None, settings), tmp_path / "one")
    stage = {"what": "train", "settings": [*settings, "train.iterations=1"], "out": str(tmp_path / "two")}
    done = launch(
        tmp_path / "plan.json",
        {"stages": [stage, stage | {"settings": settings}]},
        {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert_close_rows(tmp_path / "one", tmp_path / "two")
    for folder in (Path("checkpoints") / "00001", Path("checkpoints") / "00002"):
        assert_close_weights(tmp_path / "one" / folder, tmp_path / "two" / folder, warm.model)
        moments = [load_file(tmp_path / run / folder / "optimizer.safetensors") for run in ("one", "two")]
        assert moments[0].keys() == moments[1].keys()
        assert all(torch.allclose(moments[0][key], moments[1][key], atol=1e-5) for key in moments[0])
