"""Checkpoints: a Hugging Face model folder with the optimizer beside it, in safetensors, nothing pickled.

Nothing here draws random numbers from a generator with state (see random_streams). So model, optimizer and
the iteration number are all that a bit-equal continuation needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from repro_rl.dist.sharding import like_parameter, whole_tensor
from repro_rl.errors import CheckpointError, NonFiniteError
from repro_rl.files import remove_folder, sweep_temporaries, write_folder, write_json
from repro_rl.files.names import CHECKPOINTS
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.loading.checksums import OPTIMIZER_FILE, STATE_FILE, SUMS, check_files, file_sums, sealed
from repro_rl.policy.loading.pretrained import is_finite
from repro_rl.run.model_paths import checkpoint_folders, read_state


def save_checkpoint(
    folder: Path,
    policy: TransformersPolicy,
    optimizer: torch.optim.Optimizer | dict[str, torch.Tensor],
    state: dict[str, Any],
) -> None:
    """Write ``folder`` whole or not at all. ``optimizer``: itself, or its tensors; ``state``: JSON.

    state.json also gets the sums of all files, see ``checksums``. Raises NonFiniteError for weights that are
    NaN or infinite.
    """
    tensors = optimizer if isinstance(optimizer, dict) else optimizer_tensors(optimizer)

    def fill(temporary: Path) -> None:
        policy.save(temporary)
        save_file(tensors, temporary / OPTIMIZER_FILE)
        write_json(temporary / STATE_FILE, sealed({**state, SUMS: file_sums(temporary)}))

    check_trained(policy)
    write_folder(folder, fill)


def save_warm_start(folder: Path, policy: TransformersPolicy) -> None:
    """Write the finished model, an adapter added to its weights, whole or not at all.

    Raises NonFiniteError as ``save_checkpoint``.
    """

    def fill(temporary: Path) -> None:
        policy.save_merged(temporary)
        write_json(temporary / STATE_FILE, sealed({SUMS: file_sums(temporary)}))

    check_trained(policy)
    write_folder(folder, fill)


def check_trained(policy: TransformersPolicy) -> None:
    """Raises NonFiniteError for weights that are NaN or infinite: nothing could continue from them."""
    bad = [name for name, weight in policy.model.named_parameters() if not is_finite(weight)]
    if bad:
        raise NonFiniteError(
            f"{len(bad)} weights are NaN or infinite, {bad[0]} among them, so they are not saved. Lower the "
            "learning rate or the limit of the gradient's norm, and continue from the last checkpoint."
        )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's per-parameter state as named tensors, ``<parameter index>.<key>``.

    Where it is sharded over ranks, all of them must call this.
    """
    tensors: dict[str, torch.Tensor] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            tensor = value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
            tensors[f"{index}.{key}"] = whole_tensor(tensor).detach().cpu().contiguous()
    return tensors


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Put a saved state back. Raises CheckpointError for a file that is missing, damaged or foreign."""
    path = folder / OPTIMIZER_FILE
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing; the checkpoint is incomplete. Delete {folder} to use an older one."
        )
    check_files(folder, only=OPTIMIZER_FILE)
    state: dict[int, dict[str, torch.Tensor]] = {}
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete {folder} to use an older checkpoint."
        ) from error
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        if not (index.isascii() and index.isdigit() and key):
            raise CheckpointError(
                f"{path} holds {name!r}, which is no optimizer state; delete {folder} to use an older "
                "checkpoint."
            )
        if not is_finite(tensor):
            raise CheckpointError(
                f"{path}: {name} holds numbers that are NaN or infinite; delete {folder} to use an older "
                "checkpoint."
            )
        state.setdefault(int(index), {})[key] = tensor
    whole = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if state and max(state) >= len(parameters):
        raise CheckpointError(
            f"{path} holds {max(state) + 1} parameters, the model has {len(parameters)}; it belongs to "
            f"another model. Continue the run with its own, or delete {folder} to use an older checkpoint."
        )
    for index, entries in state.items():
        for key, tensor in entries.items():
            # Of 8-bit moments the block scales have shapes of their own.
            if key.startswith("exp_avg") and tensor.shape != parameters[index].shape:
                raise CheckpointError(
                    f"{path}: {key} of parameter {index} has shape {tuple(tensor.shape)}, the model's is "
                    f"{tuple(parameters[index].shape)}; it belongs to another model. Continue the run with "
                    f"its own model, or delete {folder} to use an older checkpoint."
                )
            entries[key] = like_parameter(tensor, parameters[index])
    whole["state"] = state
    optimizer.load_state_dict(whole)


class Checkpoint(NamedTuple):
    """A complete checkpoint of a run."""

    iteration: int
    folder: Path
    state: dict[str, Any]  # what ``save_checkpoint`` was given


def latest(run: Path) -> Checkpoint | None:
    """The newest complete checkpoint of a run folder; None when there is none. Sweeps half-written ones."""
    sweep_temporaries(run / CHECKPOINTS)
    folders = checkpoint_folders(run)
    if not folders:
        return None
    iteration = max(folders)
    return Checkpoint(iteration, folders[iteration], read_state(folders[iteration]))


def prune(run: Path, keep: int, best: int | None) -> None:
    """Delete all but the ``keep`` newest checkpoints and the best one."""
    folders = checkpoint_folders(run)
    for iteration in list(folders)[:-keep]:
        if iteration != best:
            remove_folder(folders[iteration])
