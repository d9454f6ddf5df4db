"""Tests of the compiled decode kernels need what builds them."""

from __future__ import annotations

import sys

import pytest

from repro_rl.policy.decoding.kernels.build import find_compiler

needs_kernels = pytest.mark.skipif(
    not sys.platform.startswith("linux") or find_compiler() is None,
    reason="the decode kernels are built by a C++ compiler, on Linux",
)
