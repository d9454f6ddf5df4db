"""A short, seeded share of ``benchmarks/damaged_files.py``: no damaged file ends in a traceback.

Every reader of the package reads some damaged copies of its file. What it cannot read, it refuses with an
error of the package that names the file; and where a checksum covers the file, no other value comes out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fault_injection.harness import Tally, try_reader
from fault_injection.readers import READERS, Reader, make_files

COUNT = 25  # damaged files a reader; the benchmark takes thousands

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a hang is found with SIGALRM")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    make_files(folder)
    return folder


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damaged_files_are_refused_by_name_or_read(root: Path, reader: Reader) -> None:
    tally = try_reader(reader, root, COUNT)
    assert not tally.faults, "\n".join(tally.examples)
    assert tally.files == COUNT
    assert tally.refused or reader.name in ("viewer",), "nothing was damaged badly enough"


def test_a_fault_of_each_kind_is_counted(root: Path) -> None:
    def broken(error: Exception) -> Tally:
        def read(folder: Path) -> str:
            if (folder / "levels.txt").read_bytes() != good:
                raise error
            return ""

        return try_reader(Reader("broken", "levels.txt", "text", read), root, 10)

    from repro_rl.errors import DataError

    good = (root / "levels.txt").read_bytes()
    assert broken(KeyError("x")).tracebacks == broken(KeyError("x")).faults > 5
    assert broken(DataError("no name")).unnamed > 5
    assert broken(DataError("bad", file="levels.txt")).faults == 0
    sealed = Reader(
        "sealed", "levels.txt", "text", lambda r: (r / "levels.txt").read_bytes(), lambda data: True
    )
    assert try_reader(sealed, root, 10).silent > 5
    assert (root / "levels.txt").read_bytes() == good
