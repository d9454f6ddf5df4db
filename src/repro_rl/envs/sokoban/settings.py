"""The settings of Sokoban: the only definition of them and of their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from repro_rl.settings import Section

OPEN_CELLS = 36  # largest interior laid out as an open room


def _span(least: int) -> BeforeValidator:
    """Accepts two integers [low, high], also as a list, with ``least`` <= low <= high."""

    def check(value: Any) -> tuple[int, int]:
        if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(type(v) is int for v in value):
            raise ValueError("must be two integers [low, high].")
        low, high = value
        if not least <= low <= high:
            raise ValueError(f"must hold {least} <= low <= high.")
        return low, high

    return BeforeValidator(check)


class RoomSettings(Section):
    """What a generated room depends on."""

    model_config = ConfigDict(frozen=True)  # so that it is a key of caches

    rows: int = Field(6, ge=4, description="rows of a room, border included")
    cols: int = Field(6, ge=4, description="columns of a room, border included")
    boxes: int = Field(1, ge=1, description="boxes, and as many targets")
    walls: Annotated[tuple[int, int], _span(0)] = Field(
        (1, 3), description=f"range of inner walls; for rooms up to {OPEN_CELLS} inner cells only"
    )
    solution: Annotated[tuple[int, int], _span(1)] = Field(
        (4, 10), description="range of the moves of a shortest solution"
    )
    seed: int = Field(0, description="seed of the generator")

    @property
    def cells(self) -> int:
        """Cells inside the border."""
        return (self.rows - 2) * (self.cols - 2)

    @property
    def open(self) -> bool:
        """Whether rooms are open with a few walls (else carved; ``walls`` is not used then)."""
        return self.cells <= OPEN_CELLS

    @property
    def name(self) -> str:
        """First part of the task ids."""
        return (
            f"gen-{self.rows}x{self.cols}-b{self.boxes}-w{self.walls[0]}-{self.walls[1]}"
            f"-s{self.solution[0]}-{self.solution[1]}-seed{self.seed}"
        )


class SokobanSettings(RoomSettings):
    """The settings of ``SokobanEnv``. Rooms are generated, or read from ``levels``."""

    train_rooms: int = Field(3000, ge=0, description="generated rooms of the training split")
    validation_rooms: int = Field(500, ge=0, description="generated rooms of the validation split")
    test_rooms: int = Field(500, ge=0, description="generated rooms of the test split")
    levels: str | Path | None = Field(
        None, description="a level file or folder (XSB or Boxoban), in place of generated rooms"
    )
    max_steps: int = Field(15, ge=1, description="an episode is truncated after that many steps")
    style: Literal["grid", "coordinates", "relative"] = Field(
        "relative", description="form of the observations, see text.py"
    )
    encoding: Literal["fused", "split"] = Field(
        "fused", description="relative style: a relative position is one word, or one per direction"
    )
    reward: Literal["win", "gym"] = Field(
        "win",
        description="win: 10 on solving, else 0; gym: gym-sokoban's -0.1 a step, +1 for a box pushed onto a "
        "target, -1 for one pushed off, +10 on solving",
    )

    @property
    def rooms(self) -> RoomSettings:
        """The part that generated rooms depend on."""
        return RoomSettings(**self.model_dump(include=set(RoomSettings.model_fields)))

    @model_validator(mode="after")
    def _rooms_are_possible(self) -> Self:
        if self.levels is not None:
            return self
        if self.open and self.cells - self.walls[1] < 2 * self.boxes + 1:
            raise ValueError(
                f"{self.boxes} boxes, their targets, the player and {self.walls[1]} inner walls do not fit "
                f"into {self.cells} inner cells; take fewer boxes or walls, or a larger room."
            )
        if self.solution[1] > self.max_steps:
            raise ValueError(
                f"rooms may need {self.solution[1]} moves but max_steps is {self.max_steps}; raise max_steps "
                "or lower the upper end of solution."
            )
        return self
