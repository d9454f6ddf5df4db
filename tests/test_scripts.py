"""Scripts that no other test runs still import what they use: benchmarks, examples, helpers of the tests."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_VERL = {"verl_cpu_platform.py"}  # loaded by verl alone
# Packages of environments of their own, such as .venv-openenv.
ELSEWHERE = {"httpx", "openenv", "verifiers", "openai", "datasets", "trl", "fastapi", "uvicorn", "websockets"}
SCRIPTS = [
    path.relative_to(ROOT)
    for folder in ("benchmarks", "examples", "tests/support")
    for path in sorted((ROOT / folder).glob("*.py"))
    if path.name not in NEEDS_VERL
]


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_imports(script, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / script.parent))  # benchmarks share modules
    try:
        runpy.run_path(str(ROOT / script), run_name="imported")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ELSEWHERE:
            raise
        pytest.skip(f"{error.name} is not installed here; see 'make adapters-check' and 'make bench-trl'")
