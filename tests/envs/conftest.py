"""Fixtures of the environment tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from repro_rl.envs.base import ENVS


@pytest.fixture
def own_environments() -> Iterator[None]:
    """For tests that register an environment: the registry is restored afterwards."""
    with ENVS.isolated():
        yield
