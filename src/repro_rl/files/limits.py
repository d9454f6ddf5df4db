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
MAX_UNPACKED = 1024 * MIB  # bytes that a gzip file may unpack to, unless it holds a share of them itself
MAX_RATIO = 100  # unpacked to packed bytes of a gzip file beyond MAX_UNPACKED
MAX_PACKED_VALUES = 200_000  # values in a gzip file that unpacks to over MAX_RATIO times its size
MAX_ROWS = 1_000_000  # rows of a file such as metrics.jsonl
MAX_ROW_VALUES = 5_000_000  # values in all of its rows
MAX_BLANK = 1_000  # blank lines one after another
