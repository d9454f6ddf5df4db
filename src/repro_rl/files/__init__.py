"""Reading and writing files: every file of the package goes through these functions."""

from repro_rl.files.json_data import (
    finite,
    kind_of,
    parse_json,
    parse_object,
    read_json,
    read_json_if_any,
)
from repro_rl.files.lines import Line, Rows, Unpacked, json_lines, lines_of, read_rows, whole_rows
from repro_rl.files.locks import LOCK_FILE, only_maker, only_writer
from repro_rl.files.reading import decode, read_bytes, read_text
from repro_rl.files.records import check_record
from repro_rl.files.roots import cache_root
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
from repro_rl.files.yaml_data import TABLE, load_yaml, parse_yaml, read_yaml

__all__ = [
    "LOCK_FILE",
    "TABLE",
    "Line",
    "Rows",
    "UnfinishedRows",
    "Unpacked",
    "append_line",
    "cache_root",
    "check_record",
    "decode",
    "finite",
    "json_lines",
    "key_of",
    "kind_of",
    "lines_of",
    "load_yaml",
    "naming",
    "only_maker",
    "only_writer",
    "os_error",
    "parse_json",
    "parse_object",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_json_if_any",
    "read_rows",
    "read_text",
    "read_yaml",
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
