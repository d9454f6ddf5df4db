"""Published shapes of the Qwen checkpoints: parameters, memory and dry runs without their weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.files import read_yaml
from repro_rl.policy.loading.hub import hide_progress_bars

Shape = dict[str, bool | int | str]  # a decoder's dimensions, under the names of its config.json


@cache
def shapes() -> dict[str, Shape]:
    """The shapes in ``qwen_shapes.yaml`` by hub name."""
    return read_yaml(Path(__file__).with_suffix(".yaml"), dict[str, Shape])


def find_shape(model: str) -> Shape | None:
    """The shape of a hub name ("-Instruct" and "-Base" have the plain one's); None when it is not listed."""
    return shapes().get(model.removesuffix("-Instruct").removesuffix("-Base"))


def model_config(shape: Shape) -> Any:
    """The transformers configuration of a shape."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        **shape,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        bos_token_id=151_643,
        eos_token_id=151_645,
        pad_token_id=151_643,
    )


def build_untrained(folder: Path, model: str, ranks_file: str | Path, seed: int = 0) -> Path:
    """A folder with the shape and tokenizer of ``model`` and random bfloat16 weights, to rehearse a run with.

    It costs what the checkpoint costs and knows nothing. Raises ConfigError for a model that is not listed.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from repro_rl.files import write_folder
    from repro_rl.policy.tokens.qwen_tokenizer import build_tokenizer, read_ranks

    shape = find_shape(model)
    if shape is None:
        raise ConfigError(f"The shape of {model!r} is not known{did_you_mean(model, shapes())}")
    hide_progress_bars()
    tokenizer = build_tokenizer(
        read_ranks(ranks_file), "qwen3" if shape["model_type"] == "qwen3" else "qwen2.5"
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(model_config(shape), dtype=torch.bfloat16)
    network.generation_config = GenerationConfig(eos_token_id=[151_645, 151_643], pad_token_id=151_643)

    def fill(temporary: Path) -> None:
        network.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)

    write_folder(folder, fill)
    return folder
