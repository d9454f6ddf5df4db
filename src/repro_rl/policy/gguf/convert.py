"""A GGUF file as an ordinary model folder: float32 weights, configuration, tokenizer, chat template.

Whatever the file's block formats, the weights are what llama.cpp computes with: their quantised values.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl.errors import ConfigError, DataError, PreflightError
from repro_rl.files import read_json_if_any, write_folder, write_json
from repro_rl.policy.gguf.architectures import (
    ROTARY_FACTORS,
    Array,
    check_complete,
    config_of,
    target_of,
    unpermuted,
)
from repro_rl.policy.gguf.header import GgufHeader, TensorEntry, gguf_package, read_header
from repro_rl.policy.gguf.tokenizer import build_tokenizer, check_written, special_id, stop_ids

ORIGIN_FILE = "gguf.json"  # in a converted folder: which file it was; written last
CHUNK = 1 << 22  # values that are de-quantised at a time
SHARD_BYTES = 2_000_000_000  # of one file of weights, and so of what lies in memory
WIDTH = 4  # bytes of a float32
SPARE = 1.05  # disk space asked for beside the weights: tokenizer and file system
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"

OnDone = Callable[[int, int], object]  # values converted so far, and of the whole file


def convert_gguf(path: str | Path, folder: Path, on_done: OnDone = lambda done, total: None) -> Path:
    """Write the model in a GGUF file to ``folder``, whole or not at all; returns ``folder``.

    The output matrix is tied to the embedding where the file has none, or holds the same values twice.
    ``on_done`` is called after every tensor. Raises DataError naming the file for what is damaged or not
    supported, and ConfigError when ``folder`` holds something else. Raises MissingDependencyError without the
    ``gguf`` package, and PreflightError when the disk is too small.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / ORIGIN_FILE).exists():
        raise ConfigError(f"{folder} is not empty, and no converted model; name another folder.")
    header = read_header(path)
    weights = _Weights(header)
    config = config_of(header, weights.values_if_any(ROTARY_FACTORS))
    tokenizer = build_tokenizer(header, config.max_position_embeddings)
    config.tie_word_embeddings = weights.same(EMBEDDING, OUTPUT)
    plan = _plan(header, config)
    _check_space(folder, plan.values())

    def fill(temporary: Path) -> None:
        config.save_pretrained(temporary)
        _generation_config(header).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        check_written(tokenizer, temporary, header.path)
        _write_weights(temporary, plan, lambda entry: weights.in_torch_order(entry, config), on_done)
        write_json(temporary / ORIGIN_FILE, origin(header, tied=config.tie_word_embeddings))

    write_folder(folder, fill)
    return folder


def read_config(path: str | Path) -> Any:
    """The transformers configuration of a GGUF file. Raises what ``convert_gguf`` raises."""
    header = read_header(path)
    weights = _Weights(header)
    config = config_of(header, weights.values_if_any(ROTARY_FACTORS))
    config.tie_word_embeddings = weights.same(EMBEDDING, OUTPUT)
    return config


def text_of(path: str | Path) -> tuple[Any, Any, Any]:
    """Tokenizer, configuration and generation configuration of a GGUF file, none of its weights converted.

    Raises what ``convert_gguf`` raises.
    """
    header, config = read_header(path), read_config(path)
    return build_tokenizer(header, config.max_position_embeddings), config, _generation_config(header)


def origin(header: GgufHeader, *, tied: bool) -> dict[str, Any]:
    """What a converted folder says of its file."""
    kinds = gguf_package().GGMLQuantizationType
    formats: dict[str, int] = {}  # block format -> values
    for entry in header.tensors.values():
        name = kinds(entry.kind).name
        formats[name] = formats.get(name, 0) + prod(entry.shape)
    return {
        "file": str(header.path.resolve()),
        "name": header.metadata.get("general.name"),
        "architecture": header.architecture,
        "block_formats": formats,
        "tied": tied,
    }


def is_converted(folder: Path) -> bool:
    """Whether ``folder`` is a whole model that was made from a GGUF file."""
    try:
        return "architecture" in read_json_if_any(folder / ORIGIN_FILE)
    except DataError:
        return False


def _plan(header: GgufHeader, config: Any) -> dict[str, TensorEntry]:
    """Transformers' names of the model's weights, each with the tensor that holds it.

    Raises DataError for tensors that are missing, too many, or of another shape.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers has many ways to object to dimensions
        raise DataError(f"its settings make no model: {error}", file=header.path) from error
    config.architectures, config.dtype = [type(model).__name__], torch.float32
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    found = {}
    for name, entry in header.tensors.items():
        if name == ROTARY_FACTORS or (name == OUTPUT and config.tie_word_embeddings):
            continue
        target = target_of(header, name)
        if shapes.get(target) != entry.shape:
            needed = f"{list(shapes[target])} is needed" if target in shapes else "the model has none"
            raise DataError(
                f"its tensor {name} has the shape {list(entry.shape)}, {needed}", file=header.path
            )
        found[target] = entry
    check_complete(header, list(found), list(shapes))
    return {name: found[name] for name in shapes}


def _generation_config(header: GgufHeader) -> Any:
    """Every token that ends an answer; greedy decoding otherwise, as the file says nothing of sampling."""
    from transformers import GenerationConfig

    return GenerationConfig(
        bos_token_id=special_id(header, "bos"),
        eos_token_id=stop_ids(header) or None,
        pad_token_id=special_id(header, "padding"),
    )


def _check_space(folder: Path, entries: Any) -> None:
    """Raises PreflightError when the weights do not fit on the disk of ``folder``."""
    needed = SPARE * WIDTH * sum(prod(entry.shape) for entry in entries)
    place = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise PreflightError(
            f"{folder} needs {needed / 1e9:.1f} GB for the weights in float32, and {place} has "
            f"{free / 1e9:.1f} GB; free some, or set REPRO_RL_CACHE to a folder on another disk."
        )


class _Weights:
    """The values of a file's tensors, read when they are asked for."""

    def __init__(self, header: GgufHeader):
        self.header = header
        self.gguf = gguf_package()
        self.data = np.memmap(header.path, mode="r", dtype=np.uint8)

    def chunks(self, entry: TensorEntry) -> Iterator[Array]:
        """Float32 values of a tensor, some rows at a time."""
        rows = prod(entry.shape[:-1])
        blocks = self.data[entry.start : entry.start + entry.size].reshape(rows, -1)
        kind = self.gguf.GGMLQuantizationType(entry.kind)
        step = max(1, CHUNK // entry.shape[-1])
        for first in range(0, rows, step):
            try:
                values = self.gguf.dequantize(np.array(blocks[first : first + step]), kind)
            except NotImplementedError as error:
                raise DataError(
                    f"its tensor {entry.name} has the block format {kind.name}, which the gguf package "
                    f"cannot read; take a file in another format, such as Q4_K_M or Q8_0",
                    file=self.header.path,
                ) from error
            yield np.asarray(values, dtype=np.float32)

    def values(self, entry: TensorEntry) -> Array:
        """Float32 values of a tensor. Raises DataError for values that are no numbers."""
        parts = []
        for part in self.chunks(entry):
            if not np.isfinite(part).all():
                raise DataError(
                    f"its tensor {entry.name} holds values that are no finite numbers; it is damaged",
                    file=self.header.path,
                )
            parts.append(part)
        return np.concatenate(parts).reshape(entry.shape)

    def values_if_any(self, name: str) -> Array | None:
        """Those of the tensor with this name; None where the file has none."""
        entry = self.header.tensors.get(name)
        return None if entry is None else self.values(entry)

    def same(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same values, or the file has no ``other``."""
        a, b = self.header.tensors[one], self.header.tensors.get(other)
        if b is None:
            return True
        return a.shape == b.shape and all(
            np.array_equal(left, right) for left, right in zip(self.chunks(a), self.chunks(b), strict=True)
        )

    def in_torch_order(self, entry: TensorEntry, config: Any) -> Array:
        """The values of a weight as transformers wants them."""
        return unpermuted(self.header, entry.name, config, self.values(entry))


def _write_weights(
    folder: Path,
    plan: Mapping[str, TensorEntry],
    read: Callable[[TensorEntry], Array],
    on_done: OnDone,
) -> None:
    """The weights as safetensors, in several files where they are large."""
    import torch
    from safetensors.torch import save_file

    shards = _shards(plan)
    total = sum(prod(entry.shape) for entry in plan.values())
    done, places = 0, {}
    for number, names in zip(count(1), shards):
        file = (
            "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        )
        tensors = {}
        for name in names:
            tensors[name] = torch.from_numpy(np.ascontiguousarray(read(plan[name])))
            places[name] = file
            done += prod(plan[name].shape)
            on_done(done, total)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors lets only the owner read
    if len(shards) > 1:
        index = {"metadata": {"total_size": WIDTH * total}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)


def _shards(plan: Mapping[str, TensorEntry]) -> list[list[str]]:
    """Names of weights, those of one file together."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, entry in plan.items():
        own = WIDTH * prod(entry.shape)
        if shards[-1] and size + own > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += own
    return shards
