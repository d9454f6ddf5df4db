"""``make`` alone lists the targets and starts nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """``make`` as from a shell: 'make test' tells a make within it so, which then prints its folders."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target_and_does_nothing_else() -> None:
    printed = make().stdout
    listed = {
        name for line in printed.splitlines() if not line.startswith(" ") for name in line.strip().split()
    }
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == {name for line in phony for name in line.split()}


def test_every_environment_that_runs_tests_has_what_conftest_imports() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    lines = [line for line in makefile.splitlines() if " install " in line and re.search(r"\bpytest\b", line)]
    assert len(lines) == 5
    assert [line for line in lines if not re.search(r"\bhypothesis\b", line)] == []
    pinned = (ROOT / "constraints-vllm.txt").read_text()  # that environment is installed from it
    assert "\nhypothesis==" in pinned
    assert "\npytest==" in pinned


def test_the_environment_of_vllm_has_every_package_that_ours_needs() -> None:
    """It is installed from its file alone, without what packages ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    names = {re.match(r"[A-Za-z0-9._-]+", word).group() for word in needed}  # type: ignore[union-attr]
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints-vllm.txt").read_text().splitlines()}
    assert names - pinned == set()


def environment_of(folder: Path, version: str) -> Path:
    """A finished environment whose interpreter prints ``version``."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f"#!/bin/sh\necho {version}\n")
    (folder / "bin" / "python").chmod(0o755)
    (folder / ".ready").touch()  # newer than what it is made of
    return folder


def test_setup_says_that_the_environment_has_another_python(tmp_path: Path) -> None:
    own = ".".join(map(str, sys.version_info[:2]))
    same = make("setup", f"PYTHON={sys.executable}", f"VENV={environment_of(tmp_path / 'same', own)}")
    assert (same.returncode, same.stdout) == (0, ""), same.stderr
    other = environment_of(tmp_path / "other", "3.99")
    wrong = make("setup", f"PYTHON={sys.executable}", f"VENV={other}")
    assert wrong.returncode == 2
    assert f"{other} has Python 3.99, PYTHON={sys.executable} is {own}; delete {other}" in wrong.stderr
    missing = make("setup", "PYTHON=/no/python", f"VENV={environment_of(tmp_path / 'third', own)}")
    assert missing.returncode == 2
    assert "/no/python" in missing.stderr
    assert make("setup", f"VENV={other}").returncode == 0  # none was asked for
