"""Takes one part of what ``pack.py`` made into a folder: ``python3 unpack.py TARGET``. Standard library only.

Every file is checked. Once all parts are there the weights are joined, the package is unpacked and the wheels
are installed into ``TARGET/site``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path


def take(part: Path, target: Path) -> dict[str, object]:
    """Copy a part's files; returns its manifest. Exits where a file is broken."""
    manifest = json.loads((part / "manifest.json").read_text())
    for name, digest in manifest["sha256"].items():
        data = (part / "files" / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            sys.exit(f"{part / 'files' / name} is broken; carry the part again.")
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return dict(manifest)


def finish(target: Path, model: str, parts: int) -> None:
    """Join the weights, unpack the package, install the wheels."""
    with (target / model).open("wb") as joined:
        for number in range(1, parts + 1):
            with (target / f"weights.{number:02d}").open("rb") as handle:
                shutil.copyfileobj(handle, joined)
    with tarfile.open(target / "package.tar.xz") as archive:
        archive.extractall(target / "package", filter="data")
    wheels = sorted(map(str, (target / "wheels").glob("*.whl")))
    if wheels:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-compile",
        ]
        command += ["--upgrade", "--target", str(target / "site"), *wheels]
        subprocess.run(command, check=True)


def main() -> None:
    part, target = Path(__file__).parent, Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    manifest = take(part, target)
    parts = int(str(manifest["parts"]))
    missing = [n for n in range(1, parts + 1) if not (target / f"weights.{n:02d}").exists()]
    if missing:
        print(f"Part {manifest['part']} of {parts} is here; still to come: {missing}")
        return
    finish(target, str(manifest["model"]), parts)
    demos = f" --demos {target / 'demos'}" if (target / "demos").exists() else ""
    print(
        f"Complete. Run: PYTHONPATH={target / 'package' / 'src'}:{target / 'site'} python3 "
        f"{target / 'package' / 'benchmarks' / 'gpu_run'} --model {target / str(manifest['model'])}{demos} "
        f"--work {target / 'work'} --out RESULTS"
    )


if __name__ == "__main__":
    main()
