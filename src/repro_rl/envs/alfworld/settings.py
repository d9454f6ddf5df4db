"""The settings of ALFWorld: the only definition of them and of their defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from repro_rl.settings import Section


class AlfworldSettings(Section):
    """The settings of ``AlfworldEnv``."""

    data: str | Path | None = Field(
        None,
        description="folder with official games (train, valid_seen, valid_unseen, also inside json_2.1.1); "
        "else the environment variable ALFWORLD_DATA; else the households are generated",
    )
    games: int = Field(
        2000, ge=10, description="generated training games; each other split has a quarter of that"
    )
    seed: int = Field(0, description="seed of the generated households")
    max_steps: int = Field(50, ge=1, description="an episode is truncated after that many steps")
    engine: Literal["native", "textworld"] = Field(
        "native",
        description="textworld: the original packages (files only, some hundred times slower)",
    )
    style: Literal["text", "words"] = Field(
        "text", description="text: the game's own; words: for tiny models, see words.py"
    )
    version: Annotated[Literal["0.4", "0.3"], BeforeValidator(str)] = Field(
        "0.4",
        description="ALFWorld version whose texts and commands are used: 0.4 and later, or 0.3 and before, "
        "as in the prompts of the papers",
    )

    @property
    def folder(self) -> Path | None:
        """The folder of games; None: the households are generated."""
        folder = self.data or os.environ.get("ALFWORLD_DATA")
        return Path(folder) if folder else None

    @model_validator(mode="after")
    def _engine_can_play(self) -> Self:
        if self.engine == "textworld" and self.folder is None:
            raise ValueError("engine='textworld' plays files only; name them with data=.")
        if self.engine == "textworld" and self.version != "0.4":
            raise ValueError(
                f"engine='textworld' has version 0.4 only; for {self.version} use engine='native'."
            )
        return self
