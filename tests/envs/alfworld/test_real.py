"""The original engine without its packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.errors import MissingDependencyError


def test_missing_packages_give_an_error_that_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from repro_rl.envs.alfworld.real import RealPlay

    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[alfworld\]'"):
        RealPlay(Path("x"))
