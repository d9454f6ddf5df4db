"""GGUF files as models: converted once, by one process, and never half."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
import torch

from repro_rl.config import LoraSection, PolicySection
from repro_rl.errors import CheckpointError, DataError
from repro_rl.policy import SamplingSettings, TransformersPolicy, load_codec
from repro_rl.policy.gguf import cache, cached_folder, is_converted, is_gguf, model_folder, text_of
from repro_rl.policy.loading.lora import base_of
from repro_rl.run.model_paths import find_model, is_hub_name, start_model
from support.gguf_files import byte_level_keys, random_model, write_gguf
from support.models import keys_of, load_cpu


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A GGUF file, and a cache of its own."""
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    keys = byte_level_keys()
    model = random_model("qwen3", len(keys["tokenizer.ggml.tokens"]), tied=True)
    return write_gguf(tmp_path / "small.gguf", model, "qwen3", keys)


def test_a_file_is_converted_once_and_again_when_it_changes(file, tmp_path, monkeypatch):
    folder = model_folder(file)
    assert folder == cached_folder(file)
    assert folder.is_relative_to(tmp_path / "cache" / "gguf")
    assert folder.parent.name.startswith("small-")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder(str(file)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    moved = tmp_path / "elsewhere" / "small.gguf"
    moved.parent.mkdir()
    shutil.copy2(file, moved)
    assert model_folder(moved) == folder  # the content counts, not the place
    os.utime(file, (1, 1))
    assert model_folder(file) != folder
    monkeypatch.setattr(cache, "VERSION", 99)
    assert model_folder(moved) != folder


def test_other_names_are_left_alone(tmp_path):
    for name in ("Qwen/Qwen3-0.6B", tmp_path, "api:x", "tiny"):
        assert model_folder(name) is name
    assert is_gguf("A.GGUF")
    assert not is_gguf("a.gguf/x")
    with pytest.raises(DataError, match="cannot be read"):
        model_folder(tmp_path / "none.gguf")


def test_half_written_folders_are_never_used(file, monkeypatch):
    folder = cached_folder(file)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")  # no gguf.json: not whole
    killed = folder.parent / ".model.1.tmp"
    killed.mkdir()
    (killed / "gguf.json").write_text("{}")
    assert not is_converted(folder)
    shutil.rmtree(folder)
    model_folder(file)
    assert is_converted(folder)
    assert not killed.exists()


def test_a_failed_conversion_leaves_nothing(file, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("repro_rl.policy.gguf.convert._write_weights", fail)
    with pytest.raises(KeyboardInterrupt):
        model_folder(file)
    assert [path.name for path in cached_folder(file).parent.iterdir()] == ["lock"]
    monkeypatch.undo()


def _convert(path, results):
    start = time.time_ns()
    folder = model_folder(path)
    results.put((str(folder), start, (folder / "model.safetensors").stat().st_ino))


def test_two_processes_convert_once(file):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_convert, args=(file, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    got = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert len({(folder, inode) for folder, _, inode in got}) == 1


def test_everything_takes_a_file_for_a_model(file):
    policy = load_cpu(file)
    plain = load_cpu(model_folder(file))
    ids = torch.tensor([[4, 9, 200, 17]])
    with torch.no_grad():
        assert torch.equal(policy.model(input_ids=ids).logits, plain.model(input_ids=ids).logits)
    text = load_codec(file)
    assert text.encode("go to drawer 1") == policy.codec.encode("go to drawer 1")
    assert text.eos_ids == policy.codec.eos_ids
    assert text.positions == 256
    assert find_model(file) == file == start_model(str(file))
    assert not is_hub_name("models/small.gguf")
    with pytest.raises(CheckpointError, match=r"No GGUF file at models/small\.gguf"):
        start_model("models/small.gguf")
    (first,) = policy.generate(["go"], keys_of(1), SamplingSettings(4, 1.0))
    (second,) = plain.generate(["go"], keys_of(1), SamplingSettings(4, 1.0))
    assert first.token_ids == second.token_ids


def test_the_text_of_a_file_needs_no_conversion(file):
    tokenizer, config, generation = text_of(file)
    assert not is_converted(cached_folder(file))
    assert config.tie_word_embeddings
    assert config.num_hidden_layers == 4
    assert generation.eos_token_id == [tokenizer.eos_token_id]


def test_an_adapter_on_a_file(file, tmp_path):
    """It names the file, so that the cache may be emptied in between."""
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    policy = TransformersPolicy.load(file, PolicySection(device="cpu", lora={"rank": 2}), training=True)
    policy.adapt(LoraSection(rank=2), file, 0)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    policy.save(tmp_path / "adapter")
    assert base_of(tmp_path / "adapter") == str(file)
    shutil.rmtree(tmp_path / "cache")
    again = load_cpu(tmp_path / "adapter")
    ids = torch.tensor([[4, 9, 200, 17]])
    with torch.no_grad():
        left, right = (p.model(input_ids=ids).logits for p in (policy, again))
    assert np.allclose(left, right, atol=1e-5)
    assert is_converted(cached_folder(file))
