"""Model names and folders: which of both a name is, whether the hub can be asked, and why a load failed."""

from __future__ import annotations

import difflib
import os
import re
from functools import cache
from pathlib import Path

from repro_rl.errors import CheckpointError
from repro_rl.policy.gguf import is_gguf
from repro_rl.registry import other_kinds

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_TIMEOUT = 10.0  # seconds for the one question whether the hub answers


def hide_progress_bars() -> None:
    """Hide transformers' own progress bars; ours show what matters."""
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()


def is_hub_name(name: str | Path) -> bool:
    """Whether ``name`` is OWNER/NAME at huggingface.co, such as "Qwen/Qwen3-0.6B", and no path here.

    A folder of that name comes first. Where OWNER is a folder here, the name is a mistyped path, unless the
    local cache of hub models has it.
    """
    text = str(name)
    if HUB_NAME.fullmatch(text) is None or is_gguf(text) or Path(text).exists():
        return False
    return not Path(text).parent.exists() or in_hub_cache(text)


def in_hub_cache(name: str) -> bool:
    """Whether the local cache has the configuration of a model, or of an adapter, of the hub."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:  # without the extra "train" there is no such cache
        return False
    files = ("config.json", "adapter_config.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def is_path(name: str | Path) -> bool:
    """Whether ``name`` can only mean a place here: a GGUF file, or with a separator and no hub name."""
    text = str(name)
    return is_gguf(text) or (("/" in text or os.sep in text) and not is_hub_name(text))


def no_such_model(path: str | Path) -> CheckpointError:
    """The error for a path that does not exist and is no hub name; it names what lies near."""
    folder = Path(path)
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    known = [other.name for other in beside if other.is_dir() or is_gguf(other)]
    near = difflib.get_close_matches(folder.name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {folder.parent / near[0]}?" if near else ""
    if is_gguf(path):
        return CheckpointError(f"No GGUF file at {path}.{hint}")
    if str(path) == "tiny":
        return CheckpointError(
            "No model folder at tiny. The tiny model exists once a warmup has built it (policy.model=tiny): "
            "give that run's folder."
        )
    if elsewhere := other_kinds(str(path), "model"):
        hint += f" {elsewhere}."
    return CheckpointError(
        f"No model folder at {path}.{hint} Give a run folder, a folder that holds config.json, a GGUF file, "
        "or a hub name as OWNER/NAME, such as Qwen/Qwen3-0.6B."
    )


def check_model_path(path: str | Path) -> None:
    """Raises CheckpointError for a folder that is not there, or that holds no model. The hub is not asked."""
    folder = Path(path)
    if not folder.exists():
        if not is_hub_name(path):
            raise no_such_model(path)
    elif not (folder / "config.json").exists():
        raise CheckpointError(
            f"{path} is not a model folder: config.json is missing. Is it a run folder? "
            f"Its models lie in {path}/checkpoints/<iteration>."
        )


def files_of(path: str | Path, *, local_only: bool | None = None) -> str:
    """Where the files of a model are read from: its folder, or the hub name itself.

    ``local_only``: take a hub name's files from the local cache; None: where the hub cannot be reached. The
    hub is asked once for that, so that what loads the files does not try each of them again and again.
    Raises CheckpointError when the hub answers and has no such model, and when the cache does not have it.
    """
    name = str(path)
    if Path(name).exists():
        return name
    reason = "it was not asked" if local_only else _why_the_hub_is_away(name)
    return name if reason is None else _cached_folder(name, reason)


def _cached_folder(name: str, reason: str) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, local_files_only=True)
    except Exception as error:  # the hub's library raises several
        raise CheckpointError(
            f"Cannot load a causal LM from {name}: no folder of that name is here, the local cache of hub "
            f"models does not have it, and huggingface.co was not reached ({reason})."
        ) from error


@cache
def _why_the_hub_is_away(name: str) -> str | None:
    """Why the hub does not answer; None: it does, and has the model."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        info = HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise CheckpointError(f"Cannot load a causal LM from {name}: {reason_of(error)}") from error
    except Exception as error:  # httpx, requests and the hub's library each raise their own
        return reason_of(error)
    files = {file.rfilename for file in info.siblings or ()}
    if "adapter_config.json" in files and "config.json" not in files:
        raise CheckpointError(
            f"Cannot load a causal LM from {name}: it is an adapter. Download it, for example with 'hf "
            f"download {name} --local-dir FOLDER', and give that folder."
        )
    return None


def reason_of(error: BaseException) -> str:
    """The whole message of an error in one line, with that of its cause where it says more."""
    own = " ".join(str(error).split()) or type(error).__name__
    cause = error.__cause__
    more = "" if cause is None else reason_of(cause)
    return own if not more or more in own else f"{own} ({more})"
