"""Compiled kernels for decode steps on a CPU: ``decode.cpp``, built once on the machine that runs it."""
