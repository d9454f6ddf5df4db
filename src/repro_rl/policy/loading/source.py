"""Where a policy's parts lie: the whole model, the adapters on it, and the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from repro_rl.errors import CheckpointError
from repro_rl.policy.gguf import model_folder
from repro_rl.policy.loading import lora
from repro_rl.policy.loading.hub import check_model_path

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


@dataclass(slots=True, frozen=True)
class ModelSource:
    """A model folder or hub name, followed through the adapters that stand before it."""

    model: str  # folder or hub name of the whole model
    adapters: tuple[Path, ...]  # folders, the one that was asked for first; each belongs on the next
    tokenizer: str  # folder or hub name: an adapter's own tokenizer comes first

    @contextmanager
    def explained(self) -> Iterator[None]:
        """A CheckpointError inside also says which adapter named the model, and where."""
        try:
            yield
        except CheckpointError as error:
            if not self.adapters:
                raise
            raise CheckpointError(f"{error} {lora.base_advice(self.adapters[-1])}") from error


def find_source(path: str | Path) -> ModelSource:
    """What ``path``, a folder, GGUF file or hub name, is made of. The hub is not asked.

    Raises CheckpointError where there is no model, and for an adapter whose base model is not there.
    """
    adapters: list[Path] = []
    model = str(model_folder(path))
    while lora.is_adapter(model):
        folder = Path(model)
        if any(folder.samefile(earlier) for earlier in adapters):
            raise CheckpointError(f"{folder} is an adapter on itself. {lora.base_advice(folder)}")
        adapters.append(folder)
        model = str(model_folder(lora.base_of(folder)))
    own = (str(f) for f in adapters if any((f / name).exists() for name in TOKENIZER_FILES))
    source = ModelSource(model, tuple(adapters), next(own, model))
    with source.explained():
        check_model_path(model)
    return source
