"""A training run that samples with a vLLM server, and survives the loss of it."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file

from repro_rl.config import load_config
from repro_rl.errors import ApiError
from repro_rl.policy.vllm.server import ServerSampler
from repro_rl.run.setup import set_up
from repro_rl.train import run_training
from support.api_server import error
from support.small import SMALL
from support.vllm_server import VllmServer


@pytest.fixture(scope="module")
def warm_server(warm):
    running = VllmServer(warm.model)
    yield running
    running.close()


def run_with(warm, url, out, *more, on_row=None):
    settings = ["policy.backend=vllm-server", f"policy.vllm.server={{url: '{url}', retries: 1, backoff: 0}}"]
    train = ["train.groups=4", "train.group_size=2", "train.iterations=3", "train.save_every=3"]
    config = load_config(
        None, [*SMALL, *train, "train.validate_every=3", f"train.init={warm.model}", *settings, *more]
    )
    run = run_training(config, out, on_row=on_row)
    return config, run


def test_a_run_survives_the_loss_of_its_server(warm, warm_server, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = []
    config, _ = run_with(warm, warm_server.url, tmp_path / "whole", on_row=rows.append)
    assert all(row["update/mismatch"] < 1e-5 for row in rows)
    assert all(row["update/importance_ess"] == pytest.approx(1, abs=1e-4) for row in rows)
    assert rows[-1]["validation/tasks"] == 8
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    assert manifest["sampler"]["backend"] == "vllm-server"

    def lose(row):
        if row["iteration"] == 2:
            warm_server.fail = lambda path, body, number: error(503, "gone")

    with pytest.raises(ApiError, match="gone"):
        run_with(warm, warm_server.url, tmp_path / "broken", on_row=lose)
    assert (tmp_path / "broken" / "checkpoints" / "00002").is_dir()  # not due before the third
    warm_server.fail = lambda path, body, number: None
    warm_server.restart()
    run_with(warm, warm_server.url + "/", tmp_path / "broken")  # the address may change
    whole, broken = (
        load_file(tmp_path / name / "checkpoints" / "00003" / "model.safetensors")
        for name in ("whole", "broken")
    )
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    policy = set_up(config).agent(tmp_path / "whole" / "checkpoints" / "00003")
    assert isinstance(policy, ServerSampler)
    assert set_up(config).context(policy.codec).limits.prompt == 256 - config.prompt.action_tokens
    with suppress(AttributeError):
        policy.close()
