"""The library of ``decode.cpp``: compiled by the machine's own C++ compiler, and kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from repro_rl.errors import clause
from repro_rl.files import write_bytes
from repro_rl.files.roots import cache_root
from repro_rl.files.writing import sweep_temporaries
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
REASON = 300  # letters of what a compiler says: the first error is the one that counts
DIGEST = 32  # bytes of the SHA-256 at the end of a library, which the system's loader does not read


class BuildError(Exception):
    """Why there is no library on this machine, as a clause. ``expected``: nothing is wrong with it."""

    def __init__(self, reason: str, *, expected: bool = False):
        super().__init__(reason)
        self.expected = expected


def find_compiler() -> str | None:
    """The C++ compiler of this machine that builds the library, if there is one."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def build_library(*, again: bool = False) -> Path:
    """The library for this processor, compiled where the cache does not hold it whole, or ``again``.

    Raises BuildError without a compiler, and where compiling or writing fails.
    """
    if not sys.platform.startswith("linux"):
        raise BuildError("they are built on Linux alone", expected=True)
    compiler = find_compiler()
    if compiler is None:
        raise BuildError(f"no C++ compiler ({', '.join(COMPILERS)}) was found", expected=True)
    try:
        library = cache_root() / "kernels" / f"decode-{_version(compiler)}.so"
        if again or not _is_whole(library):
            library.parent.mkdir(parents=True, exist_ok=True)
            sweep_temporaries(library.parent)
            content = _compiled(compiler)
            write_bytes(library, content + hashlib.sha256(content).digest())
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise BuildError(
            f"the library cannot be written: {clause(error)}; set REPRO_RL_CACHE to a folder that can be"
        ) from error
    return library


def _is_whole(library: Path) -> bool:
    """Whether the file is as it was written: loading a damaged library may end the process."""
    if not library.exists():
        return False
    data = library.read_bytes()
    return hashlib.sha256(data[:-DIGEST]).digest() == data[-DIGEST:]


def _version(compiler: str) -> str:
    """A digest of all that a library depends on: caches are shared by machines with other processors."""
    version = _run([compiler, "--version"]).stdout.partition("\n")[0]
    source = SOURCE.read_text(encoding="utf-8")
    processor = this_processor()
    kind = "" if processor is None else f"{processor.name} {sorted(processor.flags)}"
    known = (source, version, str((*FLAGS, THREADS)), kind)
    return hashlib.sha256("\0".join(known).encode()).hexdigest()[:16]


def _compiled(compiler: str) -> bytes:
    """The library, with threads where the compiler has them."""
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "decode.so"
        command = [compiler, *FLAGS, str(SOURCE), "-o", str(built)]
        done = _run([*command, THREADS])
        if done.returncode and any(name in done.stderr for name in ("openmp", "omp")):  # -fopenmp, -lgomp
            done = _run(command)
        if done.returncode or not built.exists():
            said = " ".join(done.stderr.split())[:REASON] or "it says nothing"
            raise BuildError(f"{compiler} does not compile them: {clause(said)}")
        return built.read_bytes()


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {SECONDS} seconds") from error
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {clause(error.strerror)}") from error
