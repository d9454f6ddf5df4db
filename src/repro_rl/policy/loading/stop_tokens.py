"""The stop tokens that a model's files name, and its generation configuration.

Nothing else of a generation configuration plays a part here, so nothing else in it refuses a model. Importing
this module loads neither torch nor transformers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from repro_rl.errors import CheckpointError, DataError
from repro_rl.files import read_json
from repro_rl.policy.loading.hub import files_of, reason_of

FILE = "generation_config.json"
NO_TOKEN = -1  # what some files write for "none"


def load_generation_config(path: str | Path, *, local_only: bool | None = None) -> Any:
    """The generation configuration of a folder or hub name; None where there is none.

    Values that transformers refuses are left out, with a warning: only its ``generate`` would read them.
    ``local_only``: as of ``load_model_config``. Raises CheckpointError for a file that cannot be read, and
    for stop tokens that are no ids.
    """
    from transformers import GenerationConfig
    from transformers.utils import cached_file

    files = files_of(path, local_only=local_only)
    try:
        file = cached_file(files, FILE)
    except OSError:  # a model folder need not have one
        return None
    if file is None:
        return None
    try:
        values = read_json(Path(file), "generation configuration")
    except DataError as error:
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: {error} Correct the file, or delete it: then the stop "
            "tokens of config.json hold."
        ) from error
    named = values.get("eos_token_id")
    stop = stop_ids(named, f"{path}/{FILE}")
    kept = set(named if isinstance(named, list) else [named]) <= stop | {None}
    try:
        if kept:  # as it is: transformers saves again what it only warns of
            return GenerationConfig.from_pretrained(files)
        config = GenerationConfig.from_dict(values | {"eos_token_id": sorted(stop) or None})
        config.validate(strict=True)  # else it could not be saved
        return config
    except Exception as error:  # of several kinds
        warnings.warn(
            f"{path}/{FILE}: transformers refuses values in it ({reason_of(error)}), so only its stop tokens "
            "are used, and saved with the model.",
            stacklevel=3,
        )
        return GenerationConfig(eos_token_id=sorted(stop) or None)


def stop_ids(value: Any, where: str) -> set[int]:
    """The ids that a field ``eos_token_id`` names: one, a list, or none. -1 is none.

    Raises CheckpointError naming the file, ``where``, for what is no id.
    """
    ids: set[int] = set()
    for part in value if isinstance(value, (list, tuple)) else [value]:
        if part is None or part == NO_TOKEN:
            continue
        if not isinstance(part, int) or isinstance(part, bool) or part < 0:
            raise CheckpointError(
                f"{where}: eos_token_id is {value!r}, which is no token's id. Write there the number of the "
                "token that ends an answer, or a list of numbers."
            )
        ids.add(part)
    return ids
