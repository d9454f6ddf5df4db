"""``make`` alone lists the targets and starts nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target_and_does_nothing_else() -> None:
    # As from a shell: 'make test' tells a make within it so, which then prints its folders.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    printed = subprocess.run(["make"], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    listed = {
        name for line in printed.splitlines() if not line.startswith(" ") for name in line.strip().split()
    }
    phony = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed == {name for line in phony for name in line.split()}
