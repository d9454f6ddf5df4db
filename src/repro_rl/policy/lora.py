"""Low-rank adapters (peft): trained beside frozen weights, which without them are the KL reference."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

from repro_rl.config import LoraSection
from repro_rl.errors import CheckpointError, ConfigError, MissingDependencyError
from repro_rl.policy.hub import first_line

ADAPTER_FILE = "adapter_config.json"  # what makes a folder an adapter's


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            "policy.lora and adapter folders need peft: pip install 'repro-rl[lora]'"
        ) from error
    return peft


def is_adapter(folder: str | Path) -> bool:
    """Whether ``folder`` holds an adapter instead of a whole model."""
    return (Path(folder) / ADAPTER_FILE).exists()


def base_of(folder: Path) -> str:
    """The model that the adapter in ``folder`` belongs on. Raises CheckpointError when it is not there."""
    path = folder / ADAPTER_FILE
    try:
        base = str(json.loads(path.read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} names no base model ({error}).") from error
    if Path(base).is_absolute() and not Path(base).exists():
        raise CheckpointError(
            f"{folder} is an adapter on {base}, which is not there; put the model back, or correct "
            f"base_model_name_or_path in {path}."
        )
    return base


def attach(model: Any, settings: LoraSection, base: str | Path, seed: int) -> Any:
    """``model`` with a new adapter, which changes nothing yet. Only the adapter's weights (float32) train.

    ``base`` is written into its checkpoints. Raises ConfigError for targets that the model lacks.
    """
    import torch

    peft = _peft()
    folder = Path(base).expanduser()
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank if settings.alpha is None else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            adapted = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"policy.lora.targets: {error}") from error
    config.base_model_name_or_path = str(folder.resolve()) if folder.exists() else str(base)
    return adapted.eval()


def load_onto(model: Any, folder: Path, training: bool) -> Any:
    """``model`` with the adapter saved in ``folder``."""
    peft = _peft()
    base = base_of(folder)
    try:
        adapted = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=training)
    except Exception as error:  # safetensors, peft and torch each raise their own
        raise CheckpointError(f"Cannot load the adapter in {folder}: {first_line(error)}") from error
    adapted.peft_config["default"].base_model_name_or_path = base
    return adapted.eval()


def has_adapter(model: Any) -> bool:
    """Whether ``model`` is one of peft's."""
    peft = sys.modules.get("peft")  # nobody can have made such a model without importing it
    return peft is not None and isinstance(model, peft.PeftModel)


def adapter_active(model: Any) -> bool:
    """Whether a forward pass of ``model`` goes through an adapter now."""
    if not has_adapter(model):
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(m, BaseTunerLayer) and not m.disable_adapters for m in model.modules())


def save_adapter(model: Any, folder: Path) -> None:
    """Adapter weights and configuration, in peft's own layout."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def merged(model: Any) -> Any:
    """A float32 copy on the CPU with the adapter's change added to the weights: an ordinary model."""
    return copy.deepcopy(model).to("cpu").float().merge_and_unload()


class AdapterOff:
    """The model without its adapter, as a callable: the frozen reference without a second copy."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        with self.model.disable_adapter():
            return self.model(**inputs)
