"""The library of ``decode.cpp``: compiled by the machine's own C++ compiler, and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from repro_rl.files.roots import cache_root
from repro_rl.policy.model.processor import this_processor

SOURCE = Path(__file__).with_name("decode.cpp")
COMPILERS = ("g++", "c++", "clang++")
# No flag lets the compiler change the order of sums; products and sums may be fused.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-fPIC", "-shared"),
)
THREADS = "-fopenmp"
SECONDS = 120  # that a compilation may take; it takes three


class BuildError(Exception):
    """Why there is no library on this machine, as a clause."""


def build_library() -> Path:
    """The library for this processor, compiled where the cache does not hold it.

    Raises BuildError without a compiler, and where compiling or writing fails.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError("they are built on Linux alone")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise BuildError(f"no C++ compiler ({', '.join(COMPILERS)}) was found")
    library = cache_root() / "kernels" / f"decode-{_digest(compiler)}.so"
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:
                built = Path(folder) / library.name
                _compile(compiler, built)
                os.replace(built, library)
        except OSError as error:
            raise BuildError(f"the library cannot be written: {error}") from error
    return library


def _digest(compiler: str) -> str:
    """Of all that a library depends on: caches are shared by machines with other processors."""
    version = _run([compiler, "--version"]).stdout.partition("\n")[0]
    processor = this_processor()
    known = (
        SOURCE.read_text(encoding="utf-8"),
        version,
        str(FLAGS),
        str(sorted(processor.flags) if processor else ""),
    )
    return hashlib.sha256("\0".join(known).encode()).hexdigest()[:16]


def _compile(compiler: str, library: Path) -> None:
    """With threads where the compiler has them."""
    command = [compiler, *FLAGS, str(SOURCE), "-o", str(library)]
    if _run([*command, THREADS]).returncode == 0:
        return
    done = _run(command)
    if done.returncode:
        raise BuildError(f"{compiler} does not compile them: {done.stderr.strip()[-500:]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {SECONDS} seconds") from error
