"""Which model a path or a name means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from repro_rl.config import load_config
from repro_rl.errors import CheckpointError, DataError
from repro_rl.run.lineage import judge_fingerprint, judge_of, taught_prompt
from repro_rl.run.model_paths import (
    find_agent,
    find_model,
    kept_start,
    read_manifest,
    run_of,
    start_entry,
    start_model,
)
from repro_rl.run.setup import set_up
from repro_rl.study.unfinished import evaluation_keys
from repro_rl.train import RLRun
from support.checkpoints import empty_checkpoint


def test_find_model(tmp_path):
    with pytest.raises(CheckpointError, match="No model folder"):
        find_model(tmp_path / "nothing")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(CheckpointError, match="holds no model"):
        find_model(run)
    folders = {i: empty_checkpoint(run, i, best_iteration=4) for i in (2, 4, 10)}
    assert find_model(run) == folders[10]  # 10 is newer than 4, whatever the alphabet says
    assert find_model(run, "best") == folders[4]
    assert find_model(run, "2") == find_model(run, "00002") == folders[2]
    assert find_model(folders[2], "best") == folders[2]  # a model folder is itself
    with pytest.raises(CheckpointError, match="no checkpoint '3'; it has 2, 4, 10"):
        find_model(run, "3")
    with pytest.raises(CheckpointError, match="does not know its warm start"):
        find_model(run, "warm-start")
    warm = tmp_path / "warm"
    (warm / "model").mkdir(parents=True)
    (warm / "model" / "config.json").write_text("{}")
    (run / "config.yaml").write_text(yaml.safe_dump({"train": {"init": str(warm)}}))
    assert find_model(run, "warm-start") == warm / "model"
    assert find_model(warm) == warm / "model"
    unknown = tmp_path / "unknown"
    empty_checkpoint(unknown, 3, best_iteration=None)
    with pytest.raises(CheckpointError, match="no best checkpoint"):
        find_model(unknown, "best")


def test_a_hub_name_is_not_a_folder(tmp_path, monkeypatch):
    """The "no warmup" ablation starts from a published model. HF_HUB_OFFLINE is set."""
    monkeypatch.chdir(tmp_path)
    assert start_model("Qwen/Qwen3-0.6B") == Path("Qwen/Qwen3-0.6B")
    for name in ("./nowhere", "/nowhere", "nowhere", "runs/warm/model"):
        with pytest.raises(CheckpointError, match=f"train.init={name}: No model folder at {name}"):
            start_model(name)
    run = tmp_path / "run"
    empty_checkpoint(run, 3)
    (run / "config.yaml").write_text(yaml.safe_dump({"train": {"init": "nobody/has-this"}}))
    assert find_model(run, "warm-start") == Path("nobody/has-this")
    Path("nobody/has-this").mkdir(parents=True)  # a folder of that name comes first
    with pytest.raises(CheckpointError, match="holds no model"):
        start_model("nobody/has-this")
    with pytest.raises(
        CheckpointError, match=r"train\.init=nobody/has-that: No model folder .* mean nobody/has-this"
    ):
        start_model("nobody/has-that")  # a mistyped path, then
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from no-one/has-that"):
        RLRun(set_up(load_config(None, ["train.init=no-one/has-that"])), tmp_path / "out")


def test_what_acts_for_a_path(tmp_path):
    assert find_agent("api:someone") == Path("api:someone")
    assert find_agent("Qwen/Qwen3-0.6B") == Path("Qwen/Qwen3-0.6B")
    run = tmp_path / "run"
    folder = empty_checkpoint(run, 3)
    assert find_agent(run) == find_agent(folder) == folder
    evaluation = tmp_path / "evaluation"  # of an API model: a run folder without any model
    evaluation.mkdir()
    (evaluation / "manifest.json").write_text('{"agent": "api:someone"}')
    assert find_agent(evaluation) == Path("api:someone")
    (evaluation / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no model"):
        find_agent(evaluation)


def test_the_run_that_a_model_lies_in(tmp_path):
    run = tmp_path / "run"
    folder = empty_checkpoint(run, 3)
    assert run_of(folder) is None  # no settings: made by no run here
    (run / "config.yaml").write_text("")
    assert run_of(run) == run_of(run / "model") == run_of(folder) == run
    assert run_of(run / "initial") == run
    assert run_of(tmp_path) is None


def test_a_settings_file_near_a_model_does_not_make_it_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("prompt: {context: chat}")  # of anything
    for name in ("Qwen/Qwen3-0.6B", "owner/model", "checkpoints/hub-model", "tiny"):
        assert run_of(name) is None
        assert taught_prompt(name) is None
    for model in ("models/x", "x"):
        Path(model).mkdir(parents=True)
        assert run_of(model) is run_of(f"./{model}") is run_of(Path(model).resolve()) is None
    for model in ("model", "initial", "checkpoints/00003"):  # seen from inside a run
        Path(model).mkdir(parents=True)
        assert run_of(model) == Path()
        assert taught_prompt(model).context == "chat"


@pytest.mark.parametrize("text", ["{", "[1]", "", '{"agent": NaN}', "[" * 9999])
def test_a_manifest_that_cannot_be_read_is_an_error_not_an_empty_one(tmp_path, text):
    assert read_manifest(tmp_path) == {}
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def model_folder(path: Path, weights: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_run_keeps_the_model_that_it_began_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, warm = tmp_path / "run", tmp_path / "warm"
    run.mkdir()
    first = model_folder(warm / "checkpoints" / "00001", b"one")
    (first / "state.json").write_text("{}")
    assert start_model(str(warm)) == first
    assert kept_start(run, first) == first  # no manifest
    (run / "manifest.json").write_text(json.dumps({"start": start_entry(first)}))
    newer = model_folder(warm / "checkpoints" / "00002", b"two")
    (newer / "state.json").write_text("{}")
    assert start_model(str(warm)) == newer
    assert kept_start(run, newer) == first
    (run / "config.yaml").write_text(yaml.safe_dump({"train": {"init": str(warm)}}))
    assert find_model(run, "warm-start") == first
    moved = model_folder(tmp_path / "moved", b"one")
    assert kept_start(run, moved) == moved  # the same weights
    model_folder(first, b"six")
    with pytest.raises(CheckpointError, match=r"00001 .*, which has other weights now, and train.init means"):
        kept_start(run, newer)
    shutil.rmtree(first)
    with pytest.raises(CheckpointError, match=r"00001 .*, which is not there, and train.init means"):
        kept_start(run, newer)
    hub = Path("Qwen/Qwen3-0.6B")
    (run / "manifest.json").write_text(json.dumps({"start": start_entry(hub)}))
    assert kept_start(run, hub) == hub
    with pytest.raises(CheckpointError, match="of the hub"):
        kept_start(run, newer)
    (run / "manifest.json").write_text('{"start": 3}')
    with pytest.raises(DataError, match=r"manifest\.json"):
        kept_start(run, newer)


def test_the_frozen_judge_is_what_the_run_began_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, warm = tmp_path / "run", model_folder(tmp_path / "warm", b"one")
    model = empty_checkpoint(run, 3)
    config = load_config(None, ["method=repro", "method.judge=reference", f"train.init={warm}"])
    init = config.reference_judge
    assert init == str(warm)
    (run / "config.yaml").write_text(yaml.safe_dump({"train": {"init": init}}))
    before = judge_fingerprint(init, model)
    assert judge_of(init, model) == warm
    assert before == start_entry(warm)["fingerprint"] != ""
    model_folder(warm, b"two")
    assert judge_fingerprint(init, model) not in ("", before)
    (run / "manifest.json").write_text(json.dumps({"start": {"model": "warm", "fingerprint": before}}))
    assert judge_fingerprint(init, model) == before  # its results stay valid
    with pytest.raises(CheckpointError, match="has other weights now"):
        judge_of(init, model)
    other = config.model_copy(update={"method": load_config(None, ["method=repro"]).method})
    assert other.reference_judge is None


def test_an_evaluation_by_a_judge_with_other_weights_is_another_one(tmp_path):
    warm = model_folder(tmp_path / "warm", b"one")
    model = model_folder(tmp_path / "policy", b"policy")

    def keys(*settings):
        config = load_config(None, ["method=repro", *settings, f"train.init={warm}"])
        return tuple(evaluation_keys(config, model, "panel", judge, None)[0] for judge in (True, False))

    found = {}
    for weights in (b"one", b"two"):
        model_folder(warm, weights)
        for reference in (["method.judge=reference"], []):
            found[weights, bool(reference)] = keys(*reference)
    assert found[b"one", True][0] != found[b"two", True][0]
    assert found[b"one", True][1] == found[b"two", True][1]  # nobody judges
    assert found[b"one", False] == found[b"two", False]
