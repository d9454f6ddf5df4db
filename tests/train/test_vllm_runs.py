"""What needs vLLM itself: training runs with an engine, and with a server. Run by ``make vllm-check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

import torch
from safetensors.torch import load_file

from repro_rl.config import load_config
from repro_rl.errors import ApiError
from repro_rl.policy.vllm.colocated import ColocatedSampler
from repro_rl.run.setup import set_up
from repro_rl.train import run_training
from support.real_vllm import RealServer, recipe


def test_training_samples_with_vllm(tmp_path):
    config = recipe(tmp_path)
    rows: list[dict[str, Any]] = []
    run_training(config, tmp_path / "run", on_row=rows.append)
    assert [row["iteration"] for row in rows] == [1, 2]
    for row in rows:
        print({name: row[name] for name in row if "mismatch" in name or "importance" in name})
        assert row["update/mismatch"] < 1e-5
        assert 0 < row["update/mismatch_max"] < 1e-3
        assert abs(row["update/mismatch_kl"]) < 1e-6
        assert row["update/importance_mean"] == pytest.approx(1, abs=1e-4)
        assert row["update/importance_ess"] == pytest.approx(1, abs=1e-4)
        assert row["update/importance_capped"] == 0
        assert row["update/grad_norm"] > 0
    assert "validation/success" in rows[1]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["sampler"]["backend"] == "vllm"
    # Killed after an iteration and continued: the same weights as the unbroken run.
    half = load_config(None, [f"{k}={json.dumps(v)}" for k, v in config.model_dump(mode="json").items()])
    half.train.iterations = 1
    run_training(half, tmp_path / "half")
    run_training(config, tmp_path / "half")
    whole, continued = (
        load_file(tmp_path / name / "checkpoints" / "00002" / "model.safetensors") for name in ("run", "half")
    )
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    policy = set_up(config).agent(tmp_path / "run" / "checkpoints" / "00002")
    assert isinstance(policy, ColocatedSampler)


def test_training_with_a_server_and_without_it(tmp_path, tmp_path_factory):
    """Two iterations against a server; then it is lost, and nothing of the run is."""
    base = recipe(tmp_path, "policy.backend=vllm-server", "policy.vllm.server.url=http://127.0.0.1:1")
    server = RealServer(Path(str(base.train.init)), tmp_path / "log")
    try:
        server.ready()
        more = [f"{k}={json.dumps(v)}" for k, v in base.model_dump(mode="json").items()]
        where = [f"policy.vllm.server.{x}" for x in (f"url={server.url}", "retries=1", "backoff=0.1")]
        config = load_config(None, [*more, *where, "train.iterations=3", "train.save_every=3"])
        rows: list[dict[str, Any]] = []

        def lose(row: dict[str, Any]) -> None:
            rows.append(row)
            if row["iteration"] == 1:
                server.stop()

        config.train.validate_every = 0
        with pytest.raises(ApiError, match=rf"{server.url}.*Start it again"):
            run_training(config, tmp_path / "run", on_row=lose)
        assert rows[0]["update/mismatch"] < 1e-5
        assert (tmp_path / "run" / "checkpoints" / "00001").is_dir()  # not due before the third
        server.start()
        server.ready()
        run_training(config, tmp_path / "run", on_row=rows.append)
        assert [row["iteration"] for row in rows] == [1, 2, 3]
        assert all(row["update/mismatch"] < 1e-5 for row in rows)
    finally:
        server.stop()
