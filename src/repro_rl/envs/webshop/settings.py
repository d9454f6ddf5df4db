"""The settings of WebShop: the only definition of them and of their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from repro_rl.settings import Section


class WebShopSettings(Section):
    """The settings of ``WebShopEnv``."""

    data: str | Path | None = Field(
        None,
        description="folder with the original files, or a catalogue written by `repro-rl data webshop "
        "import`; without it the catalogue is generated",
    )
    products: str | Path | None = Field(None, description="file name in data; by default the original's")
    attributes: str | Path | None = Field(None, description="file name in data; by default the original's")
    human: str | Path | None = Field(None, description="file name in data; by default the original's")
    limit: int | None = Field(None, ge=1, description="only the first so many products")
    generated: tuple[int, int] = Field(
        (1200, 0), description="number of products and seed of a generated catalogue"
    )
    goal_type: Literal["synthetic", "human"] = Field("synthetic", description="kind of drawn goals")
    goals: str | Path | None = Field(None, description="frozen goals, JSON lines, in place of drawn ones")
    prices: str | Path | None = Field(None, description="frozen prices, JSON lines, in place of drawn ones")
    seed: int = Field(0, description="seed of prices, price caps, the order of goals and the splits")
    max_goals: int = Field(100_000, ge=1, description="only the first so many goals")
    splits: Literal["product", "position"] = Field(
        "product",
        description="product: no product is the target of two splits; position: the usual 0-500 test, "
        "500-1500 eval, rest train",
    )
    style: Literal["text", "text_rich", "compact", "words"] = Field(
        "text",
        description="text, text_rich: the original's; compact: the RL papers' (what follows the instruction, "
        "each piece quoted); words: for tiny models, see words.py",
    )
    reward: Literal["win", "score"] = Field(
        "win", description="win: 10 for a purchase of score 1.0, else 0; score: the score of the purchase"
    )
    max_steps: int = Field(15, ge=1, description="an episode is truncated after that many steps")
    show_attributes: bool = Field(
        False, description='pages have the original\'s optional "Attributes" button'
    )

    @property
    def is_generated(self) -> bool:
        """Whether the catalogue is generated."""
        return self.data is None and self.products is None

    @property
    def folder(self) -> Path | None:
        """``data`` as a path."""
        return None if self.data is None else Path(self.data)

    @model_validator(mode="after")
    def _files_have_a_folder(self) -> Self:
        if self.is_generated and (self.attributes or self.human or self.limit):
            raise ValueError(
                "the generated catalogue takes no attributes, human or limit: name your data as well"
            )
        return self

    def file(self, name: str | Path | None) -> Path | None:
        """A file name as given, or within ``data`` when it is there."""
        if name is None:
            return None
        inside = Path(self.data or ".") / name
        return inside if inside.is_file() else Path(name)
