"""Reading and writing files."""

from repro_rl.files.cache import cache_root
from repro_rl.files.locks import LOCK_FILE, only_maker, only_writer
from repro_rl.files.reading import read_json, read_json_if_any, whole_rows
from repro_rl.files.unfinished import UnfinishedRows, key_of, rows_of
from repro_rl.files.writing import (
    append_line,
    naming,
    os_error,
    remove_folder,
    replacing,
    sweep_temporaries,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)

__all__ = [
    "LOCK_FILE",
    "UnfinishedRows",
    "append_line",
    "cache_root",
    "key_of",
    "naming",
    "only_maker",
    "only_writer",
    "os_error",
    "read_json",
    "read_json_if_any",
    "remove_folder",
    "replacing",
    "rows_of",
    "sweep_temporaries",
    "whole_rows",
    "write_bytes",
    "write_folder",
    "write_json",
    "write_text",
]
