"""A KV cache at fixed addresses: what CUDA graphs of decode steps read and write.

Rows and columns are allocated in sizes from short lists, so that few different shapes (and so few graphs)
occur.
"""

from __future__ import annotations

from repro_rl.policy.decoding.row_cache import RowCache

FIRST_WIDTH = 128  # fewest columns
ROW_STEPS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96)  # rows allocated; multiples of 64 beyond


def width_bucket(columns: int) -> int:
    """The least of 128, 192, 256, 384, 512, 768, ... that holds ``columns``."""
    size = FIRST_WIDTH
    while size < columns:
        if size * 3 // 2 >= columns:
            return size * 3 // 2
        size *= 2
    return size


def row_bucket(rows: int) -> int:
    """The least size in ``ROW_STEPS``, or multiple of 64, that holds ``rows``."""
    return next((size for size in ROW_STEPS if size >= rows), -(-rows // 64) * 64)


def bucket_cells(rows: int, columns: int) -> int:
    """Cells (rows x columns) that are allocated for so many."""
    return row_bucket(rows) * width_bucket(columns)


def fitting_rows(cells: int, columns: int) -> int:
    """The most rows of so many ``columns`` that are allocated in at most ``cells`` cells; at least one."""
    most = max(1, cells // width_bucket(columns))
    return most // 64 * 64 if most >= 128 else max(size for size in ROW_STEPS if size <= most)


class StaticCache(RowCache):
    """The buffers; see ``RowCache``."""

    def reserve(self, rows: int, columns: int) -> bool:
        """Allocate at least ``rows`` and ``columns``. Whether the buffers moved."""
        return self.resize(max(self.shape[0], row_bucket(rows)), max(self.shape[1], width_bucket(columns)))
