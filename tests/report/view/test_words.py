"""docs/viewer.md calls the buttons and columns what the page calls them."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

PAGE = (Path(__file__).parents[3] / "docs" / "viewer.md").read_text(encoding="utf-8")
SCRIPT = files("repro_rl").joinpath("report/templates/view.js").read_text(encoding="utf-8")


def constant(name: str) -> str:
    """The text of a constant of the script."""
    return SCRIPT.split(f"const {name} = [")[1].split("];\n")[0]


def test_every_button_stands_in_the_table_of_buttons() -> None:
    buttons = re.findall(r'^\s*\["([^"]+)",', "\n" + constant("PRESETS"), re.M)
    table = PAGE.split("## Questions")[1].split("## Filters")[0]
    assert re.findall(r"^\| ([^|]+?) \|", table, re.M) == ["button", *buttons]


def test_the_columns_of_progress_have_the_same_names() -> None:
    heads = re.findall(r'"(Online|Retrosp\.|True|Gap)"', constant("COLUMNS"))
    assert heads == ["Online", "Retrosp.", "True", "Gap"]
    sentence = PAGE.split("Columns are progress after the last step:")[1].split("Flags:")[0]
    assert re.findall(r"\*(\w+)\*", sentence) == ["online", "retrospective", "true", "Gap"]
