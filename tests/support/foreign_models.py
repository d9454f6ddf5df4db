"""Folders of foreign models with random weights, the tiny model's tokenizer beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
BERT_LIKE: dict[str, Any] = LLAMA_LIKE | {"num_key_value_heads": 4, "type_vocab_size": 1}


def save_foreign(folder: Path, tiny_folder: Path, kind: str, **settings: Any) -> Path:
    """Write a model of the type ``kind`` of transformers, the same for the same settings, to ``folder``.

    Its vocabulary and tokenizer are those of ``tiny_folder``.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    copy_tokenizer(tiny_folder, folder)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    names = {"vocab_size": vocabulary, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(names | settings)))
    model.save_pretrained(folder)
    return folder


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer's files alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, folder)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors in a folder's model.safetensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    """Set fields of a JSON object in a file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
