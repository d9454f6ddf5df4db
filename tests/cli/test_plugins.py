"""The setting ``plugins`` in the commands whose KEY=VALUE are no settings of a run, and in studies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from repro_rl.cli.app import COMMANDS
from repro_rl.cli.commands import app
from repro_rl.config import METHODS, load_config
from repro_rl.envs import ENVS
from repro_rl.errors import ConfigError
from repro_rl.study.definition import load_study

MODULE = """
from repro_rl.config import METHODS, register_method
from repro_rl.envs import ENVS
from repro_rl.envs.sokoban import SokobanEnv

class Mine(SokobanEnv):
    '''Rooms of mine.'''

class Bare(SokobanEnv):
    '''Without a schema.'''
    settings_schema = None
    def __init__(self, rooms: int = 12, name: "str" = "a", *, walls: bool, other: object = len):
        super().__init__()

ENVS.register("mine", Mine)
ENVS.register("bare", Bare)
register_method("mine-method", {**METHODS.get("gigpo")})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plugin_of_mine.py").write_text(MODULE)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("doctor", "mine"), "expert wins"),
        (("doctor", "mine", "max_steps=20"), "max_steps 20"),
        (("play", "mine", "--expert"), "Solved after"),
        (("list", "environments"), "Rooms of mine."),
        (("list", "methods"), "mine-method"),
        (("settings", "mine"), "max_steps"),
        (("settings", "bare"), "walls     true | false   required"),
        (("settings", "bare"), "rooms     int            12"),
        (("panel", "show", "mine"), "validation"),
        (("compare", "--dry-run", "-m", "mine-method", "-m", "grpo"), "mine-method"),
    ],
)
def test_names_of_a_plugin_are_found(folder: Path, words: tuple[str, ...], shown: str) -> None:
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-m", "repro_rl", *words, "plugins=[plugin_of_mine]"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(source)]), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout


def test_a_study_file_and_a_recipe_may_name_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "recipe.yaml").write_text("base: sokoban-tiny\nplugins: [plugin_of_mine]\n")
    for text in (
        "methods: [mine-method, gigpo]\nset: {plugins: [plugin_of_mine]}\n",
        "methods: [mine-method, gigpo]\nset: ['plugins=[plugin_of_mine]']\n",
        "methods: [mine-method, gigpo]\nrecipe: recipe.yaml\n",
    ):
        (folder / "study.yaml").write_text(text)
        with ENVS.isolated(), METHODS.isolated():
            sys.modules.pop("plugin_of_mine", None)
            study = load_study(folder / "study.yaml")
            assert [arm.method for arm in study.methods] == ["mine-method", "gigpo"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library_of_mine", r"no_such_library_of_mine' \(broken_plugin\.py, line 1\)\nSet by"),
        ("import os\nraise RuntimeError('no licence')", r"no licence \(broken_plugin\.py, line 2\)\nSet by"),
        ("def broken(:", r"SyntaxError: invalid syntax \(broken_plugin\.py, line 1\)\nSet by"),
        ("import sys\nsys.exit(0)", r"SystemExit: 0 \(broken_plugin\.py, line 2\)\nSet by"),
        ("raise SystemExit('no GPU')", r"SystemExit: no GPU \(broken_plugin\.py, line 1\)\nSet by"),
    ],
)
def test_a_plugin_that_fails_is_named_with_its_own_reason(
    text: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "broken_plugin.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, ["plugins=[broken_plugin]"])
    assert "PYTHONPATH" not in str(caught.value)
    sys.modules.pop("broken_plugin", None)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands in a group, and in the groups in it."""
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):  # a group
            yield from leaves(inner, (*path, name))
        else:
            yield (*path, name), inner


# Every command with the words that it cannot do without; what they name need not be there.
WORDS = {
    "demos": (),
    "warmup": (),
    "train": (),
    "eval": ("no-run",),
    "report": ("no-run",),
    "doctor": ("no-env",),
    "play": ("no-env",),
    "demo": (),
    "compare": ("-m", "repro"),
    "pilot": (),
    "plan": (),
    "progress": ("no-run",),
    "view": ("no-run",),
    "panel show": ("no-env",),
    "panel export": ("no-env", "--out", "panel.json"),
    "verl data": ("-c", "sokoban-tiny"),
    "verl sft-data": ("-c", "sokoban-tiny"),
    "verl train": ("-c", "sokoban-tiny"),
    "list": ("recipes",),
    "settings": (),
    "new": ("env", "mine"),
}


PLUGINS = ("plugin_of_mine.py", "plugin_that_ends.py")


def test_all_commands_are_tried() -> None:
    """``data`` alone is left out: it converts files and looks up no name."""
    found = {" ".join(path) for path, _ in leaves(typer.main.get_command(app)) if path[0] != "data"}
    assert found == set(WORDS)
    assert {name.split()[0] for name in WORDS} | {"data"} == set(COMMANDS)


@pytest.mark.parametrize("command", WORDS)
def test_every_command_imports_plugins(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module ends the command when it is imported, so that nothing else is done."""
    (folder / "plugin_that_ends.py").write_text("raise RuntimeError('imported by name')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    words = [*command.split(), *WORDS[command], "plugins=[plugin_that_ends]"]
    with pytest.raises(ConfigError, match="imported by name"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert {path.name for path in folder.iterdir()} <= {*PLUGINS, "__pycache__"}  # nothing was begun


def test_an_agent_of_a_run_takes_plugins_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "plugin_that_ends.py").write_text("raise RuntimeError('imported by name')")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    words = ("play", "mine", "--agent", "model", "-c", "sokoban-tiny", "plugins=[plugin_that_ends]")
    with pytest.raises(ConfigError, match="imported by name"):
        CliRunner().invoke(app, words, catch_exceptions=False)
