"""A seeded share of ``benchmarks/kill_and_resume.py``: commands stopped at random moments lose nothing."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="trials run in forks")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        module = importlib.import_module("kill_and_resume")
        module._import_everything()
        base = tmp_path_factory.mktemp("trials")
        patch.setenv("REPRO_RL_CACHE", str(base / "cache"))
        yield module.Bench(base, random.Random(1))


@pytest.mark.parametrize(("way", "count"), [("kill", 6), ("interrupt", 6), ("disk", 6)])
def test_a_stopped_command_is_repeated_to_the_same_result(bench: Any, way: str, count: int) -> None:
    """Every command once: demos, warmup, train, eval, compare, import."""
    result = bench.trials(list(bench.stages), count, getattr(bench, way))
    assert result.failures == []
    assert result.trials == count
    assert result.stopped > 0
