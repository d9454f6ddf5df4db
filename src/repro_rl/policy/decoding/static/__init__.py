"""Decoding over a static KV cache: all rows together, on a GPU as CUDA graphs."""
