"""A run folder with episodes to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.view import make_view_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_view_run(tmp_path_factory.mktemp("runs") / "a")
