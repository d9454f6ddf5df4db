"""Tests of the compiled decode kernels need what builds them."""

from __future__ import annotations

import shutil
import sys

import pytest

from repro_rl.policy.decoding.kernels.build import COMPILERS

needs_kernels = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not any(map(shutil.which, COMPILERS)),
    reason="the decode kernels are built by a C++ compiler, on Linux",
)
