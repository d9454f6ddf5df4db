"""Decoding with wide models on a CPU: a prefix that rows share is stored and read once."""
