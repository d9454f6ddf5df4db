"""Bounds on what is read. A file beyond one is refused with a sentence that states it.

They lie far above every file that the package writes. With them no file, however it was made, takes more
than a gigabyte of memory to refuse.
"""

from __future__ import annotations

MIB = 1 << 20
MAX_TEXT = 32 * MIB  # bytes of a JSON document, of a line of JSON lines, of a level file
MAX_YAML = 4 * MIB  # bytes of a YAML file
MAX_DEPTH = 100  # lists and objects inside each other
MAX_VALUES = 1_000_000  # values in a JSON document or line
MAX_YAML_VALUES = 100_000  # values in a YAML file, those behind an alias counted each time
MAX_INTEGER = 2**63 - 1  # of either sign; a larger one fits no array and no float
MAX_RATIO = 100  # unpacked to packed bytes of a gzip file: where a stretch is above it, MAX_UNPACKED holds
MAX_UNPACKED = 384 * MIB  # bytes of memory that such a stretch may take, estimated as follows
VALUE_BYTES = 100  # for each value, beside its text
LINE_BYTES = 4096  # for each line, beside its text and values: it costs time too
WIDEST = 4  # for each byte of a text that is not ASCII: Python keeps a text as wide as its widest character
MAX_ROWS = 1_000_000  # rows of a file such as metrics.jsonl
MAX_ROW_VALUES = 5_000_000  # values in all of its rows
MAX_UNREADABLE = 10_000  # of its rows that cannot be read, MAX_TEXT bytes in all
MAX_BLANK = 1_000  # blank lines one after another
