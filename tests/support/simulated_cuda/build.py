"""Builds the simulated device, with the machine's C++ compiler and torch's headers."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")
TESTS = Path(__file__).parents[2]
COMPILERS = ("c++", "g++", "clang++")


def find_compiler() -> str | None:
    """A C++ compiler of this machine, if there is one."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def build_device(folder: Path) -> Path:
    """The library in ``folder``, compiled where it is not there (20 seconds). Torch is not imported."""
    compiler = find_compiler()
    assert compiler is not None
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch = Path(found.origin).parent
    # Folders of tests are kept and shared: another source or another torch is another library.
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = folder / f"simulated_cuda-{digest}-{version('torch')}.so"
    if library.exists():
        return library
    command = [
        *(compiler, "-std=c++20", "-O0", "-w", "-shared", "-fPIC", f"-I{torch / 'include'}", str(SOURCE)),
        *("-o", str(library), f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-lc10", "-ltorch_cpu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the simulated device does not compile:\n{done.stderr}")
    return library


def environment(library: Path) -> dict[str, str]:
    """The variables of a process that has the simulated device: one thread, our sources and the tests'."""
    paths = (Path(__file__).with_name("site"), TESTS, TESTS.parent / "src")
    own = {"SIMULATED_CUDA": str(library), "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return os.environ | own | {"OMP_NUM_THREADS": "1"}
