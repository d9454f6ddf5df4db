"""Which model a path or name means: model folders, run folders and their checkpoints, hub and API names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from repro_rl.config import is_api
from repro_rl.config.paths import read_run_section, resolved
from repro_rl.errors import CheckpointError
from repro_rl.files import check_record, read_json_if_any
from repro_rl.files.names import CHECKPOINTS, CONFIG_FILE, MANIFEST_FILE
from repro_rl.files.records import Text
from repro_rl.policy.gguf import is_gguf
from repro_rl.policy.loading.checksums import STATE_FILE, SUMS, fingerprint, read_sealed
from repro_rl.policy.loading.hub import is_hub_name, no_such_model
from repro_rl.policy.loading.lora import is_adapter
from repro_rl.run.folder import INITIAL
from repro_rl.run.folder_kind import demo_runs

START = "start"  # in manifest.json: the model that a run began with


class _Start(TypedDict):
    """That model in a manifest."""

    model: Text  # its folder or file, or a hub name
    fingerprint: Text  # of its weights; empty for a hub name


class _Manifest(TypedDict, total=False):
    """What is read here of a manifest; other kinds of runs have none."""

    start: _Start


def checkpoint_folder(run: Path, iteration: int) -> Path:
    """Where a run keeps the checkpoint of an iteration, of a warmup: of an update."""
    return run / CHECKPOINTS / f"{iteration:05d}"


def checkpoint_folders(run: Path) -> dict[int, Path]:
    """Complete checkpoints of a run by iteration, ascending. Half-written ones have another name."""
    complete: dict[int, Path] = {}
    folder = run / CHECKPOINTS
    if folder.exists():
        for path in folder.iterdir():
            if path.name.isdigit() and (path / STATE_FILE).exists():
                complete[int(path.name)] = path
    return dict(sorted(complete.items()))


def read_state(folder: Path) -> dict[str, Any]:
    """The state that ``save_checkpoint`` was given.

    Raises CheckpointError where it cannot be read, or holds other values than were written.
    """
    if not (folder / STATE_FILE).exists():
        raise CheckpointError(
            f"{folder / STATE_FILE} is missing; delete {folder} to use an older checkpoint."
        )
    return {name: value for name, value in read_sealed(folder).items() if name != SUMS}


def start_model(init: str, given: str = "train.init=") -> Path:
    """What train.init means: a model or run folder, or a hub name (loading it tells whether it exists).

    ``given``: what stands before the model where the user names it. Raises CheckpointError with both for
    anything else.
    """
    if is_hub_name(init):
        return Path(init)
    try:
        return find_model(init)
    except CheckpointError as error:
        raise CheckpointError(f"{given}{init}: {error}") from error


def start_entry(model: Path) -> dict[str, str]:
    """The manifest's entry ``START`` of a run that begins with ``model``."""
    return {"model": str(model), "fingerprint": fingerprint(model)}


def recorded_start(run: Path) -> tuple[Path, str] | None:
    """The model that ``run`` began with and the fingerprint of its weights, by its manifest.

    None for the manifest of an older version. Raises DataError for one that is broken.
    """
    manifest = check_record(_Manifest, read_manifest(run), file=run / MANIFEST_FILE)
    entry = manifest.get("start")
    return None if entry is None else (resolved(run, entry["model"]), entry["fingerprint"])


def kept_start(run: Path, found: Path) -> Path:
    """The model that ``run`` began with, by its manifest. ``found``: what its train.init means now.

    These may differ: a run folder means another model once it was trained further. Manifests of older
    versions do not tell. Raises CheckpointError where neither has the weights that the run began with.
    """
    began_with = recorded_start(run)
    if began_with is None:
        return found
    recorded, weights = began_with
    if fingerprint(found) == weights:
        return found
    if weights and fingerprint(recorded) == weights:
        return recorded
    state = "has other weights now" if recorded.exists() else "is not there"
    raise CheckpointError(
        f"{run} began with {recorded} (weights {weights or 'of the hub'}), which {state}, and train.init "
        f"means {found} now, whose weights are others. Put the model back that the run began with, or use "
        "another folder."
    )


def find_model(path: str | Path, which: str = "last") -> Path:
    """The model that ``path`` means: a model folder or GGUF file, or a checkpoint of the run folder it is.

    ``which``: "best", "last", "warm-start" or an iteration number. Raises CheckpointError saying what exists.
    """
    root = Path(path)
    if not root.exists():
        raise no_such_model(path)
    if is_gguf(path) and root.is_file():
        return root
    if (root / "config.json").exists() or is_adapter(root):
        return root
    if which == "warm-start":
        return _warm_start_of(root)
    if (root / "model" / "config.json").exists():
        return root / "model"
    return _checkpoint_of(root, which)


def _warm_start_of(run: Path) -> Path:
    settings = run / CONFIG_FILE
    init = read_run_section(settings.parent, "train").get("init") if settings.exists() else None
    if not init or not (Path(init).exists() or is_hub_name(init)):
        raise CheckpointError(f"{run} does not know its warm start ({init}); give the model folder itself.")
    return kept_start(run, start_model(init))


def _checkpoint_of(run: Path, which: str) -> Path:
    folders = checkpoint_folders(run)
    if not folders:
        inside = next(filter(checkpoint_folders, demo_runs(run)), None)
        hint = f"Did you mean {inside}? " if inside else ""
        raise CheckpointError(
            f"{run} holds no model: neither config.json, nor model/, nor checkpoints/<iteration>/. {hint}"
            f"Give a Hugging Face folder or a run folder made by 'repro-rl warmup' or 'repro-rl train'."
        )
    if which == "last":
        return folders[max(folders)]
    if which == "best":
        best = read_state(folders[max(folders)]).get("best_iteration")
        if best in folders:
            return folders[best]
        raise CheckpointError(
            f"{run} has no best checkpoint (was train.validate_every 0?); use --checkpoint last."
        )
    if which.isdigit() and int(which) in folders:
        return folders[int(which)]
    raise CheckpointError(
        f"{run} has no checkpoint {which!r}; it has {', '.join(map(str, folders))}, "
        f"and best, last, warm-start."
    )


def find_agent(path: str | Path, which: str = "last") -> Path:
    """What acts for ``path``: a model folder (see find_model), or a hub name or ``api:MODEL`` as it is.

    The run folder of their evaluation names such a model in its manifest.
    """
    if is_api(path) or is_hub_name(path):
        return Path(path)
    try:
        return find_model(path, which)
    except CheckpointError:
        agent = read_manifest(Path(path)).get("agent")
        if agent is None:
            raise
        return Path(agent)


def run_of(model: str | Path) -> Path | None:
    """The run folder of a model: itself, or the one above ``model``, ``initial`` or ``checkpoints/<n>``.

    None for anything else, such as a hub name, or a model that only lies in a folder with some config.yaml.
    """
    if is_hub_name(model):
        return None
    path = Path(model)
    candidates = [path]
    if path.name in ("model", INITIAL):
        candidates.append(path.parent)
    if path.parent.name == CHECKPOINTS:
        candidates.append(path.parent.parent)
    return next((folder for folder in candidates if (folder / CONFIG_FILE).is_file()), None)


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a run folder; empty where there is none. Raises DataError for a broken one."""
    return read_json_if_any(folder / MANIFEST_FILE)
