"""Checkpoints: a Hugging Face model folder with the optimizer beside it, in safetensors, nothing pickled.

Nothing here draws random numbers from a generator with state (see policy.random_streams), so model, optimizer
and the iteration number are all that a bit-equal continuation needs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from repro_rl.errors import CheckpointError
from repro_rl.files import sweep_temporaries, write_folder, write_json
from repro_rl.policy.lora import is_adapter
from repro_rl.train.sharded import like_parameter, whole_tensor

STATE_FILE, OPTIMIZER_FILE = "state.json", "optimizer.safetensors"


def save_checkpoint(
    folder: Path,
    policy: Any,
    optimizer: torch.optim.Optimizer | dict[str, torch.Tensor],
    state: dict[str, Any],
) -> None:
    """Write ``folder`` whole or not at all. ``optimizer``: itself, or its tensors; ``state``: JSON."""
    tensors = optimizer if isinstance(optimizer, dict) else optimizer_tensors(optimizer)

    def fill(temporary: Path) -> None:
        policy.save(temporary)
        save_file(tensors, temporary / OPTIMIZER_FILE)
        write_json(temporary / STATE_FILE, state)

    write_folder(folder, fill)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's per-parameter state as named tensors, ``<parameter index>.<key>``.

    Where processes hold parts of it, all must ask.
    """
    tensors: dict[str, torch.Tensor] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
            tensors[f"{index}.{key}"] = whole_tensor(tensor).detach().cpu().contiguous()
    return tensors


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a saved state back. Raises CheckpointError when the file is missing or of another model."""
    path = folder / OPTIMIZER_FILE
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing; the checkpoint is incomplete. Delete {folder} to use an older one."
        )
    state: dict[int, dict[str, torch.Tensor]] = {}
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete {folder} to use an older checkpoint."
        ) from error
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    whole = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if state and max(state) >= len(parameters):
        raise CheckpointError(f"{path} holds {max(state) + 1} parameters, the model has {len(parameters)}.")
    for index, entries in state.items():
        for key, tensor in entries.items():
            # Of 8-bit moments the block scales have shapes of their own.
            if key.startswith("exp_avg") and tensor.shape != parameters[index].shape:
                raise CheckpointError(
                    f"{path}: {key} of parameter {index} has shape {tuple(tensor.shape)}, the model's is "
                    f"{tuple(parameters[index].shape)}; it belongs to another model."
                )
            entries[key] = like_parameter(tensor, parameters[index])
    whole["state"] = state
    optimizer.load_state_dict(whole)


def checkpoint_folders(run: Path) -> dict[int, Path]:
    """Complete checkpoints of a run by iteration, ascending. Half-written ones have another name."""
    found: dict[int, Path] = {}
    folder = run / "checkpoints"
    if folder.exists():
        for path in folder.iterdir():
            if path.name.isdigit() and (path / STATE_FILE).exists():
                found[int(path.name)] = path
    return dict(sorted(found.items()))


def latest(run: Path) -> tuple[int, Path, dict[str, Any]] | None:
    """Newest complete checkpoint: iteration, folder and state; None when there is none."""
    sweep_temporaries(run / "checkpoints")
    folders = checkpoint_folders(run)
    if not folders:
        return None
    iteration = max(folders)
    return iteration, folders[iteration], read_state(folders[iteration])


def read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE_FILE
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete {folder} to use an older checkpoint."
        ) from error


def prune(run: Path, keep: int, best: int | None) -> None:
    """Delete all but the ``keep`` newest checkpoints and the best one."""
    folders = checkpoint_folders(run)
    for iteration in list(folders)[:-keep]:
        if iteration != best:
            # Renamed first: a kill during the deletion must not leave half a checkpoint by that name.
            doomed = folders[iteration].with_name(f".{folders[iteration].name}.old.tmp")
            folders[iteration].rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def is_hub_name(name: str) -> bool:
    """ "Qwen/Qwen3-0.6B" and the like, where no such folder exists."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def start_model(init: str) -> Path:
    """What train.init means: a model or run folder, or a hub name (loading it tells whether it exists)."""
    return Path(init) if is_hub_name(init) else find_model(init)


def find_model(path: str | Path, which: str = "last") -> Path:
    """The model folder that ``path`` means: itself, or a checkpoint of the run folder it is.

    ``which``: "best", "last", "warm-start" or an iteration number. Raises CheckpointError saying what exists.
    """
    root = Path(path)
    if not root.exists():
        raise CheckpointError(f"No folder {path}.")
    if (root / "config.json").exists() or is_adapter(root):
        return root
    if which == "warm-start":
        from repro_rl.config import read_settings

        settings = root / "config.yaml"
        init = read_settings(settings).get("train", {}).get("init") if settings.exists() else None
        if not init or not (Path(init).exists() or is_hub_name(init)):
            raise CheckpointError(
                f"{root} does not know its warm start ({init}); give the model folder itself."
            )
        return start_model(init)
    if (root / "model" / "config.json").exists():
        return root / "model"
    folders = checkpoint_folders(root)
    if not folders:
        raise CheckpointError(
            f"{root} holds no model: neither config.json, nor model/, nor checkpoints/<iteration>/. "
            f"Give a Hugging Face folder or a run folder made by 'repro-rl warmup' or 'repro-rl train'."
        )
    if which == "last":
        return folders[max(folders)]
    if which == "best":
        best = read_state(folders[max(folders)]).get("best_iteration")
        if best in folders:
            return folders[best]
        raise CheckpointError(
            f"{root} has no best checkpoint (was train.eval_every 0?); use --checkpoint last."
        )
    if which.isdigit() and int(which) in folders:
        return folders[int(which)]
    raise CheckpointError(
        f"{root} has no checkpoint {which!r}; it has {', '.join(map(str, folders))}, "
        f"and best, last, warm-start."
    )
