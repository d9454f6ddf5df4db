"""The core install: without deep-learning libraries, figures or scipy everything but models works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.api_evaluation import evaluation_settings
from support.api_server import KEY

BLOCKED = """
import sys
from importlib.machinery import PathFinder

BLOCKED = {"torch", "transformers", "tokenizers", "accelerate", "safetensors", "peft", "matplotlib", "scipy"}
find = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in BLOCKED else find(name, path, target)

PathFinder.find_spec = find_spec
"""


def run_blocked(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``code`` in a process that has none of the blocked packages."""
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **env},
    )


def command(*arguments: str, **env: str) -> str:
    """The output of a command that must succeed."""
    done = run_blocked("sys.argv[0] = 'repro-rl'\nfrom repro_rl.cli import main\nmain()", *arguments, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_api_model_is_evaluated_and_its_run_reported(server, tmp_path: Path) -> None:
    settings = evaluation_settings(server.url, tmp_path / "cache")
    run = tmp_path / "run"
    command("eval", "api:m", "-c", "sokoban-qwen3", "-o", str(run), *settings, TEST_API_KEY=KEY)
    assert (run / "trajectories").is_dir()
    out = command("progress", str(run))
    assert "retrospective" in out
    page = tmp_path / "page.html"
    command("report", str(run), "-o", str(page))
    assert "</html>" in page.read_text(encoding="utf-8")


def test_environments_and_demonstrations(tmp_path: Path) -> None:
    assert "5 of 5 won" in command("doctor", "sokoban")
    out = tmp_path / "demos"
    command(
        "demos", "-c", "sokoban-tiny", "-o", str(out), "demos.expert=2", "demos.winning=1", "demos.failing=1"
    )
    assert {"demos.json", "expert.jsonl.gz", "labelled.jsonl.gz"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "-c", "sokoban-tiny"),
        ("warmup", "-c", "sokoban-tiny", "--demos", "x"),
        ("demo",),
        ("compare", "-m", "repro"),
    ],
)
def test_what_needs_an_extra_says_which(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run_blocked(
        "sys.argv[0] = 'repro-rl'\nfrom repro_rl.cli import main\nmain()",
        *arguments,
        "-o",
        str(tmp_path / "o"),
    )
    assert done.returncode == 2
    assert "pip install '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_library_says_so_too() -> None:
    done = run_blocked("import repro_rl\nrepro_rl.make('sokoban')\nrepro_rl.TransformersPolicy")
    assert "MissingDependencyError: torch is not installed" in done.stderr
