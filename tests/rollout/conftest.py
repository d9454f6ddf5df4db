"""Environments to play in."""

from __future__ import annotations

import pytest

from support.episodes import sokoban_pool


@pytest.fixture
def pool():
    return sokoban_pool()
