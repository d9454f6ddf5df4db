"""Reading and writing files."""

from repro_rl.files.cache import cache_root
from repro_rl.files.reading import read_json, read_json_if_any, whole_rows
from repro_rl.files.writing import (
    replacing,
    sweep_temporaries,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)

__all__ = [
    "cache_root",
    "read_json",
    "read_json_if_any",
    "replacing",
    "sweep_temporaries",
    "whole_rows",
    "write_bytes",
    "write_folder",
    "write_json",
    "write_text",
]
