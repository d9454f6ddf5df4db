"""Low-rank adapters (peft): trained beside frozen weights, which without them are the KL reference."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro_rl.config import LoraSection
from repro_rl.errors import CheckpointError, ConfigError, DataError, DeviceMemoryError, require_extra, some
from repro_rl.files import read_json
from repro_rl.policy.loading.hub import is_hub_name, reason_of
from repro_rl.policy.loading.merging import ParameterOrder, parameter_order, shared_weights
from repro_rl.policy.model.adapter import changes_layers_alone, kind_of_adapter
from repro_rl.policy.model.memory import LOADING, memory_explained

ADAPTER_FILE = "adapter_config.json"  # what makes a folder an adapter's
# Input and output embeddings, by name of the module; and a whole matrix of such.
EMBEDDINGS = re.compile(r"\.(embed_tokens|embed_in|wte|word_embeddings|lm_head|embed_out)\.")
MATRIX = re.compile(EMBEDDINGS.pattern + r"(modules_to_save\.)?weight$")


def _peft() -> Any:
    require_extra("peft")
    import peft

    return peft


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of peft (0.21.2, the newest) that a user can do nothing about.

    It reads ``is_gradient_checkpointing``, which transformers warns of; no call of ours can ask it for the
    new name, ``is_activation_checkpointing``. It also warns of adapters on weights that layers share, which
    ``attach`` refuses and ``merging`` separates.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "(?s).*tie_word_embeddings", UserWarning)
        yield


def is_adapter(folder: str | Path) -> bool:
    """Whether ``folder`` holds an adapter instead of a whole model."""
    return (Path(folder) / ADAPTER_FILE).exists()


def base_of(folder: Path) -> str:
    """The model that the adapter in ``folder`` belongs on: a folder, or a hub name.

    A relative path is looked for from the working directory, in ``folder`` and beside it. Raises
    CheckpointError when none is named, and when it is neither a folder nor a hub name.
    """
    try:
        base = read_json(folder / ADAPTER_FILE, "settings of an adapter").get("base_model_name_or_path")
    except DataError as error:
        raise CheckpointError(
            f"The adapter in {folder} names no base model ({error}). {base_advice(folder)}"
        ) from error
    if not isinstance(base, str) or not base.strip():
        raise CheckpointError(f"The adapter in {folder} names no base model. {base_advice(folder)}")
    beside = (folder / base, folder.parent / base)
    for candidate in (*beside, Path(base)) if base.startswith(".") else (Path(base), *beside):
        try:
            found = candidate.exists()
        except OSError as error:  # no file can have this name, or nobody may look
            reason = error.strerror or type(error).__name__
            raise CheckpointError(
                f"{folder} is an adapter on {base[:200]!r}, which cannot be read ({reason}). "
                f"{base_advice(folder)}"
            ) from error
        if found:
            return str(candidate)
    if not is_hub_name(base):
        raise CheckpointError(f"{folder} is an adapter on {base}, which is not there. {base_advice(folder)}")
    return base


def base_advice(folder: Path) -> str:
    """What to do about the base model of the adapter in ``folder``."""
    return (
        f"The base model of the adapter {folder} is named by base_model_name_or_path in "
        f"{folder / ADAPTER_FILE}: write there the folder (absolute, or relative to the adapter's) or the "
        "hub name of the model that the adapter was trained on."
    )


def attach(model: Any, section: LoraSection, base: str | Path, seed: int) -> Any:
    """``model`` with a new adapter, which changes nothing yet. Only the adapter's weights (float32) train.

    ``base`` is written into its checkpoints. Raises ConfigError for targets that the model lacks, or whose
    weights other layers have as well.
    """
    import torch

    peft = _peft()
    folder = Path(base).expanduser()
    config = peft.LoraConfig(
        r=section.rank,
        lora_alpha=2 * section.rank if section.alpha is None else section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.targets,
        task_type="CAUSAL_LM",
    )
    order = parameter_order(model)
    try:
        with torch.random.fork_rng(devices=()), _quiet():
            torch.manual_seed(seed)
            adapted = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"policy.lora.targets: {error}") from error
    check_targets(adapted)
    config.base_model_name_or_path = str(folder.resolve()) if folder.exists() else str(base)
    return _ready(adapted, order)


def check_targets(adapted: Any) -> None:
    """Raises ConfigError for a trained adapter on weights that other layers have as well.

    Added to the weights, it would change those layers too. Checkpoints and vLLM, which know one weight, could
    not hold the model that was trained.
    """
    shared = shared_weights(adapted.get_base_model())
    if shared:
        raise ConfigError(
            f"policy.lora.targets: {some(shared)} are one weight in {base_kind(adapted)} "
            "(tie_word_embeddings), so an adapter on one of these layers alone is no change of the weights. "
            "Name other layers, or all-linear."
        )


def base_kind(adapted: Any) -> str:
    """The kind of the model under an adapter, for messages."""
    return str(adapted.get_base_model().config.model_type)


def load_onto(model: Any, folder: Path, training: bool) -> Any:
    """``model`` with the adapter saved in ``folder``; its embeddings resized to those saved with it.

    Raises CheckpointError when the file cannot be read, or does not fit the model, and for an adapter that
    does more than change layers.
    """
    import torch

    peft = _peft()
    base = base_of(folder)
    _check_harmless(folder)
    order = parameter_order(model)
    try:
        _check_kind(folder, peft.PeftConfig.from_pretrained(str(folder)))
        shapes = _saved_shapes(folder)
        rows = _embedding_rows(folder, shapes, model.get_input_embeddings().num_embeddings)
        with (
            memory_explained(f"loading the adapter in {folder}", LOADING),
            torch.random.fork_rng(devices=()),  # what is drawn is replaced by what was saved
            _quiet(),
        ):
            if rows != model.get_input_embeddings().num_embeddings:
                model.resize_token_embeddings(rows, mean_resizing=False)
            adapted = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=training)
        expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except (CheckpointError, DeviceMemoryError):
        raise
    except Exception as error:  # safetensors, peft and torch each raise their own
        raise CheckpointError(f"Cannot load the adapter in {folder}: {reason_of(error)}") from error
    absent = sorted(set(expected) - set(shapes))
    foreign = sorted(name for name in set(shapes) - set(expected) if not EMBEDDINGS.search(name))
    if absent or foreign:
        raise CheckpointError(
            f"Cannot load the adapter in {folder}: it does not fit {base}. Its file lacks {some(absent)}, "
            f"and has {some(foreign)} that no layer takes. {base_advice(folder)}"
        )
    adapted.peft_config["default"].base_model_name_or_path = base
    return _ready(adapted, order, brings_embeddings=not set(shapes) <= set(expected))


def _ready(adapted: Any, order: ParameterOrder, *, brings_embeddings: bool = False) -> Any:
    """``adapted`` with the shorter forward passes of ``model.adapter_layers``, dropout off.

    Kept for later: ``order`` for ``merging.merge`` (see ``merging.parameter_order``). Also whether its file
    has the model's embeddings, which ``save_adapter`` then writes again.
    """
    from repro_rl.policy.model.adapter_layers import shorten

    shorten(adapted)
    adapted.parameter_order, adapted.brings_embeddings = order, brings_embeddings
    return adapted.eval()


def _check_kind(folder: Path, config: Any) -> None:
    """Raises CheckpointError for an adapter that does more than change layers.

    Neither the packed engine nor vLLM would see it, and it cannot be added to the weights.
    """
    if changes_layers_alone(config):
        return
    kind = kind_of_adapter(config)
    if getattr(config, "alora_invocation_tokens", None):
        kind += " with alora_invocation_tokens"
    raise CheckpointError(
        f"Cannot load the adapter in {folder}: its peft_type is {kind}, which does more than change layers "
        "of the model. Train an adapter that can be added to the weights, such as a plain LORA."
    )


def _check_harmless(folder: Path) -> None:
    """peft imports the module that an adapter's file names for Megatron. Raises CheckpointError."""
    settings = read_json(folder / ADAPTER_FILE)
    if settings.get("megatron_config"):
        raise CheckpointError(
            f"Cannot load the adapter in {folder}: megatron_config in its {ADAPTER_FILE} would import the "
            f"Python module {settings.get('megatron_core')!r}. Remove it there: layers of Megatron are not "
            "used here."
        )


def _saved_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of an adapter's file by name. A pickled file is read as tensors alone."""
    import torch
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if path.exists():
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    tensors = torch.load(folder / "adapter_model.bin", map_location="cpu", weights_only=True)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _embedding_rows(folder: Path, shapes: Mapping[str, tuple[int, ...]], rows: int) -> int:
    """Rows of the embeddings that the adapter was trained on; ``rows``: those of its base model.

    Whole matrices come with it (peft's ``modules_to_save``, or embeddings that were resized), or single rows
    (``trainable_token_indices``).
    """
    whole = [shape[0] for name, shape in shapes.items() if MATRIX.search(name)]
    if whole:
        return max(whole)
    single = read_json(folder / ADAPTER_FILE, "settings of an adapter").get("trainable_token_indices")
    indices = [i for part in (single.values() if isinstance(single, dict) else [single or ()]) for i in part]
    return max([rows, *(int(index) + 1 for index in indices)])


def save_adapter(model: Any, folder: Path) -> None:
    """Adapter weights and configuration, in peft's own layout; with the embeddings that came with it."""
    model.save_pretrained(str(folder), save_embedding_layers=getattr(model, "brings_embeddings", False))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
