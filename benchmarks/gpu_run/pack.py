"""Builds the folders to carry to a machine without a package index: package, wheels, weights in parts.

``python benchmarks/gpu_run/pack.py --model FILE.gguf [--demos FOLDER] --out packed`` writes ``packed/1``,
``packed/2`` ... of at most ``--limit`` MiB each. Carry each to the machine and run its ``unpack.py`` there;
with the last one it says what to run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MIB = 1 << 20
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
)


def download_wheels(folder: Path) -> None:
    """The wheels in ``wheels.txt``, for Python 3.12 on Linux x86-64, whatever runs here."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    subprocess.run([*command, "--requirement", str(HERE / "wheels.txt")], check=True)


def archive_package(path: Path) -> None:
    """Source and this benchmark, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "src", "benchmarks/gpu_run"], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(path, "w:xz") as archive:
        for name in sorted(filter(None, listed.stdout.decode().split("\0"))):
            if (ROOT / name).exists():
                archive.add(ROOT / name, arcname=name)


def pieces(source: Path, first: int, limit: int) -> list[tuple[int, int]]:
    """(offset, length) of the parts of a file: the first at most ``first`` bytes long, others ``limit``."""
    size, out, start = source.stat().st_size, [], 0
    while start < size:
        length = min(size - start, limit if out else first)
        out.append((start, length))
        start += length
    return out


def pack(model: Path, demos: Path | None, out: Path, limit: int, wheels: bool) -> list[Path]:
    """The folders, each with a manifest and ``unpack.py``. Raises ValueError where the limit is too small."""
    if out.exists():
        raise ValueError(f"{out} is there already; remove it, or give another --out.")
    with tempfile.TemporaryDirectory() as name:
        rest = Path(name)
        (rest / "wheels").mkdir()
        if wheels:
            download_wheels(rest / "wheels")
        archive_package(rest / "package.tar.xz")
        if demos is not None:
            shutil.copytree(demos, rest / "demos")
        files = [path for path in sorted(rest.rglob("*")) if path.is_file()]
        used = sum(path.stat().st_size for path in files)
        reserve = 64 << 10  # manifest and unpack.py
        if used + reserve >= limit:
            raise ValueError(
                f"Package, wheels and demonstrations take {used / MIB:.1f} MiB; raise --limit above that."
            )
        parts = pieces(model, limit - used - reserve, limit - reserve)
        folders = []
        for number, (start, length) in enumerate(parts, 1):
            folder = out / str(number)
            (folder / "files").mkdir(parents=True)
            if number == 1:
                for path in files:
                    target = folder / "files" / path.relative_to(rest)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
            with model.open("rb") as handle:
                handle.seek(start)
                (folder / "files" / f"weights.{number:02d}").write_bytes(handle.read(length))
            write_manifest(folder, number, len(parts), model.name)
            shutil.copyfile(HERE / "unpack.py", folder / "unpack.py")
            folders.append(folder)
    return folders


def write_manifest(folder: Path, number: int, count: int, model: str) -> None:
    """Digests of the part's files, to be checked where they arrive."""
    inside = folder / "files"
    digests = {
        str(path.relative_to(inside)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(inside.rglob("*"))
        if path.is_file()
    }
    content = {"part": number, "parts": count, "model": model, "sha256": digests}
    (folder / "manifest.json").write_text(json.dumps(content, indent=1) + "\n")


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file of the model to train")
    parser.add_argument("--demos", type=Path, help="demonstrations to warm up with")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, default=50, help="MiB of one folder (default: 50)")
    parser.add_argument("--no-wheels", action="store_true", help="the machine has all packages")
    arguments = parser.parse_args()
    limit = int(arguments.limit * MIB)
    try:
        folders = pack(arguments.model, arguments.demos, arguments.out, limit, not arguments.no_wheels)
    except ValueError as error:
        sys.exit(str(error))
    for folder in folders:
        print(f"{folder}: {size(folder) / MIB:.1f} MiB")
        assert size(folder) <= limit
    print(f"On the machine, for each of the {len(folders)}: python3 FOLDER/unpack.py TARGET")


if __name__ == "__main__":
    main()
