"""A GGUF file through every command: data gguf, plan, demos, warmup, train with an adapter, eval."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from repro_rl.policy.gguf import cached_folder, is_converted
from repro_rl.policy.loading.lora import base_of, is_adapter
from repro_rl.run.model_paths import find_model
from support.command import run_command
from support.gguf_files import byte_level_keys, random_model, write_gguf
from support.models import load_cpu

# The recipe for models that read, in minutes: few short episodes, a byte-level vocabulary of 300 tokens.
SMALL = (
    "env.settings={style: relative, max_steps: 2, solution: [1, 2], train_rooms: 8, validation_rooms: 4, "
    "test_rooms: 4}",
    "prompt.max_prompt_tokens=2500",
    "prompt.max_chat_tokens=5000",
    "prompt.action_tokens=48",
    "prompt.reflect_new_tokens=120",
    "demos={expert: 3, winning: 2, failing: 2}",
    "warmup={updates: 2, forward_from: 0, forward_batch: 1, reflect_batch: 1}",
    "train={groups: 2, group_size: 2, minibatches: 1, iterations: 1, micro_tokens: 4000, validate_every: 0}",
    "eval={tasks: 2, validation_tasks: 2}",
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small Llama of random weights; the working folder and the cache are the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    keys = byte_level_keys(pre="smollm")
    vocabulary = len(keys["tokenizer.ggml.tokens"])
    model = random_model(
        "llama",
        vocabulary,
        tied=True,
        max_position_embeddings=8192,
        num_hidden_layers=1,
        initializer_range=0.02,
    )
    return write_gguf(tmp_path / "small.gguf", model, "llama", keys, quantised="Q8_0")


def test_the_command_writes_a_folder_of_its_own(file, tmp_path, capsys, monkeypatch):
    code, text = run_command(capsys, monkeypatch, "data", "gguf", file, tmp_path / "model")
    assert code == 0
    assert "llama model from" in text
    assert "Q8_0" in text
    assert "tied to the embedding" in text
    assert f"policy.model={tmp_path / 'model'}" in text
    assert not (tmp_path / "cache").exists()
    assert load_cpu(tmp_path / "model").codec.chat
    file.write_bytes(file.read_bytes()[:5000])
    code, text = run_command(capsys, monkeypatch, "data", "gguf", file, tmp_path / "other")
    assert code == 2
    assert "small.gguf:itiscutoff" in "".join(text.split())


def test_a_plan_reads_the_file_and_leaves_it(file, tmp_path, capsys, monkeypatch):
    model = f"policy.model={file}"
    code, text = run_command(
        capsys, monkeypatch, "plan", "sokoban-135m", model, *SMALL, "--gpu", "h100", "--tasks", "2"
    )
    assert code == 0
    assert "characters are taken for a token" not in text
    assert "4 episodes" in text
    assert not is_converted(cached_folder(file))


def test_from_a_file_to_an_evaluated_adapter(file, tmp_path, capsys, monkeypatch):
    pytest.importorskip("peft", reason="needs repro-rl[lora]")
    settings = ("-c", "sokoban-135m", f"policy.model={file}", "policy.lora.rank=2", *SMALL)
    assert run_command(capsys, monkeypatch, "demos", *settings)[0] == 0
    code, text = run_command(capsys, monkeypatch, "warmup", *settings)
    assert code == 0, text
    assert f"{file} is converted once, into {cached_folder(file)}" in text.replace("\n", "")
    assert (tmp_path / "runs" / "warmup" / "model" / "config.json").exists()
    shutil.rmtree(tmp_path / "cache")
    code, text = run_command(capsys, monkeypatch, "train", *settings, "--init", file, "-o", "runs/rl")
    assert code == 0, text
    checkpoint = find_model("runs/rl")
    assert is_adapter(checkpoint)
    assert base_of(checkpoint) == str(file)
    shutil.rmtree(tmp_path / "cache")  # the file is enough
    trained = load_cpu(checkpoint).model
    with torch.no_grad():
        assert torch.isfinite(trained(input_ids=torch.tensor([[1, 2, 3]])).logits).all()
    code, text = run_command(capsys, monkeypatch, "eval", file, *settings, "--no-judge")
    assert code == 0, text
    (result,) = (tmp_path / "runs" / "small" / "eval").glob("*.json")
    assert json.loads(result.read_text())["tasks"] == 2


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (("warmup", "--demos", "nowhere"), "eval.validation_tasks=999"),
        (("train", "--init", "small.gguf"), "eval.validation_tasks=999"),
        (("train", "--init", "small.gguf"), "train.split=nowhere"),
        (("plan", "--probe"), "train.split=nowhere"),
    ],
)
def test_a_panel_that_is_not_there_is_found_before_the_conversion(
    command, setting, file, tmp_path, capsys, monkeypatch
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("base: sokoban-qwen3\n")
    source = ("recipe.yaml",) if command[0] == "plan" else ("-c", "recipe.yaml")
    words = (
        *SMALL,
        "policy.model=small.gguf",
        "warmup.target_success=0.5",
        "train.validate_every=1",
        setting,
    )
    code, text = run_command(capsys, monkeypatch, *command, *source, *words)
    assert code == 2
    assert setting.partition("=")[0] in text
    assert not (tmp_path / "cache").exists()
