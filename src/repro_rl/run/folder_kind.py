"""What a folder holds, so that no command writes into the folder of another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from repro_rl.errors import ConfigError
from repro_rl.files import read_json_if_any
from repro_rl.files.names import CONFIG_FILE, DEMOS_FILE, MANIFEST_FILE

Kind = Literal["training", "warmup", "verl", "pilot", "evaluation", "demonstrations", "study", "demo"]

NAMES: dict[Kind, str] = {
    "training": "a training run",
    "warmup": "a warmup",
    "verl": "a run of verl",
    "pilot": "a pilot study",
    "evaluation": "evaluations of a model that was not trained here",
    "demonstrations": "demonstrations",
    "study": "a study",
    "demo": "the stages of a demo",
}
KIND = "kind"  # in manifest.json
FILES: tuple[tuple[str, Kind], ...] = (
    ("study.json", "study"),
    ("pilot.json", "pilot"),
    (DEMOS_FILE, "demonstrations"),
)


def kind_of(folder: Path) -> Kind | None:
    """What ``folder`` holds; None for an empty folder, and for what no command of ours has finished.

    Raises DataError for a broken manifest.json.
    """
    for name, kind in FILES:
        if (folder / name).is_file():
            return kind
    if demo_runs(folder):
        return "demo"
    if not (folder / CONFIG_FILE).is_file():
        return None
    manifest = read_json_if_any(folder / MANIFEST_FILE)
    return next((kind for kind in NAMES if kind == manifest.get(KIND)), None)


def evaluated_agent(manifest: Mapping[str, Any]) -> str | None:
    """The model that a folder evaluates and nobody trained here; None for a ``manifest`` of another kind.

    Such a folder's settings name a method that the model has nothing to do with.
    """
    return str(manifest["agent"]) if manifest.get(KIND) == "evaluation" and manifest.get("agent") else None


def demo_runs(folder: Path) -> list[Path]:
    """The training runs of a folder that 'repro-rl demo' made, its own first; [] for any other folder."""
    first = folder / "train"
    if not ((folder / "demos" / DEMOS_FILE).is_file() and (first / CONFIG_FILE).is_file()):
        return []
    return [first, *sorted(file.parent for file in folder.glob("train-*/config.yaml"))]


def check_kind(folder: Path, kind: Kind) -> None:
    """Raises ConfigError where ``folder`` holds something else than ``kind``; nothing is written."""
    found = kind_of(folder)
    if found not in (None, kind):
        raise ConfigError(
            f"{folder} holds {NAMES[found]}, not {NAMES[kind]}; name another folder with --out."
        )
