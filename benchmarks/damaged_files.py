"""Damaged files by the thousand, for every reader of the package; and files that grow when they are read.

    python benchmarks/damaged_files.py --files 3000 --out damaged_files.json
    python benchmarks/damaged_files.py --files 0 --only viewer --bombs gzip

Each reader (tests/fault_injection/readers.py) reads ``--files`` damaged copies of its file. Counted are
tracebacks, hangs (20 seconds of the processor), errors that do not name the file, and other values where a
checksum can tell. Then every bomb is read in a process of its own, whose peak memory is measured (POSIX
only). Exit status 1 for any fault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_injection.harness import Tally, _try_once, file_of, try_reader
from fault_injection.readers import READERS, Reader, make_files
from repro_rl.plan.resources import memory_peak

MEMORY = 1 << 30  # bytes that no bomb may take
PIECE = 1 << 20


def packed(block: bytes, count: int, begin: bytes = b"") -> bytes:
    """A gzip file, cut before its end, that unpacks to ``begin`` and ``count`` times ``block``."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = stream.compress(begin) + stream.flush(zlib.Z_FULL_FLUSH)
    # After a full flush nothing refers to what was before, so that the same bytes unpack to the block again.
    return head + (stream.compress(block) + stream.flush(zlib.Z_FULL_FLUSH)) * count


def long_texts(end: str) -> bytes:
    """Records of some 31 MiB each, in ASCII but for the last character of each."""
    text = json.dumps({"task_id": "a", "steps": [], "won": True, "goal": "a" * (31 * PIECE) + end})
    return packed(text.encode() + b"\n", 33)


def noise_first() -> bytes:
    """Empty objects behind 4 MB that cannot be packed, so that the whole file grows less."""
    noise = random.Random(0).randbytes(2 * PIECE).hex()
    return packed(b"{}\n" * (PIECE // 3), 300, f'{{"goal": "{noise}"}}\n'.encode())


def episodes() -> bytes:
    """One whole episode again and again, as a policy that always writes the same would be recorded."""
    names = ("observation", "brief", "anchor", "prompt", "text", "action", "feedback")
    texts = {name: f"the {name} of a step, in a few words" for name in names}
    numbers = {"valid": True, "env_reward": 0.0, "terms": {"outcome": 0.5}, "advantage": 0.5}
    steps = [{"t": t, **texts, **numbers, "online": 2 * t, "defects": []} for t in range(50)]
    record = {"task_id": "a", "won": True, "score": 1.0, "error": None, "steps": steps}
    return packed((json.dumps(record) + "\n").encode() * 100, 600)


def aliases() -> bytes:
    """YAML of some 300 bytes that stands for 10**10 values."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", *lines]).encode()


# name -> (content, the readers that get it, by the kind of their file)
BOMBS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "gzip of 10 GiB zeros": (lambda: packed(bytes(PIECE), 10_240), ("jsonl.gz", "json.gz")),
    "gzip of 4 GiB newlines": (lambda: packed(b"\n" * PIECE, 4096), ("jsonl.gz", "json.gz")),
    "gzip of 2 GiB empty objects": (lambda: packed(b"{}\n" * (PIECE // 3), 2048), ("jsonl.gz",)),
    "gzip of an endless text": (lambda: packed(b"a" * PIECE, 4096, b'["'), ("jsonl.gz", "json.gz")),
    "gzip of an array without end": (
        lambda: packed(b"{}," * (PIECE // 3), 2048, b"["),
        ("jsonl.gz", "json.gz"),
    ),
    "100,000 brackets": (lambda: b"[" * 100_000, ("json", "jsonl", "yaml", "text")),
    "100,000 objects inside each other": (lambda: b'{"a":' * 100_000, ("json", "jsonl", "yaml")),
    "30 MB of empty lists": (lambda: b"[" + b"[]," * 10_000_000 + b"1]", ("json", "jsonl", "yaml")),
    "30 MB of small objects": (lambda: b"[" + b'{"":0},' * 4_000_000 + b"1]", ("json", "jsonl", "yaml")),
    "200 MB of one text": (
        lambda: b'{"a": "' + b"x" * 200_000_000 + b'"}',
        ("json", "jsonl", "yaml", "text"),
    ),
    "aliases of aliases": (aliases, ("yaml",)),
    "a number of 4 million digits": (lambda: b'{"a": ' + b"9" * 4_000_000 + b"}", ("json", "jsonl", "yaml")),
    "gzip of 300 MiB of records": (
        lambda: packed(b'{"task_id":"a","steps":[{},{},{}],"won":true}\n' * 20_000, 300),
        ("jsonl.gz",),
    ),
    "gzip of episodes": (episodes, ("jsonl.gz",)),
    "gzip of long texts": (lambda: long_texts("a"), ("jsonl.gz",)),
    "gzip of long texts, four bytes a character": (lambda: long_texts("\U0001f600"), ("jsonl.gz",)),
    "gzip of 1 GiB of lines that are not JSON": (lambda: packed(b"x\n" * (PIECE // 2), 1024), ("jsonl.gz",)),
    "gzip of noise, then empty objects": (noise_first, ("jsonl.gz",)),
    "10 MB of lines that are not JSON": (lambda: b"x\n" * 5_000_000, ("jsonl",)),
    "30 MB of rows": (lambda: b'{"iteration":1}\n' * 2_000_000, ("jsonl",)),
    "one level of a million columns": (lambda: b"#" * 1_000_000 + b"\n#\n" * 500_000, ("text",)),
}


def read_bombs(root: Path, readers: list[Reader], only: str) -> Iterator[dict[str, Any]]:
    """One row for each bomb whose name holds ``only`` and each reader of such files."""
    for name, (content, kinds) in BOMBS.items():
        whole = root / "bomb"
        if only in name:
            whole.write_bytes(content())
            for reader in readers:
                if reader.kind in kinds:
                    yield {"bomb": name, "reader": reader.name, **_in_fork(root, reader, whole)}


def _in_fork(root: Path, reader: Reader, bomb: Path) -> dict[str, Any]:
    """``read_bomb`` in a copy of this process, whose peak memory starts with what it has at the fork."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write, json.dumps(read_bomb(root, reader, bomb)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as handle:
        text = handle.read()
    status = os.waitpid(pid, 0)[1]
    return json.loads(text) if text else {"died": f"wait status {status}"}


def read_bomb(root: Path, reader: Reader, bomb: Path) -> dict[str, Any]:
    """Read the file ``bomb`` in the place of the reader's own: the outcome, and what it took."""
    path = file_of(reader, root)
    good = path.read_bytes()
    tally = Tally(reader.name)
    before, begin = memory_peak(), time.process_time()
    try:
        shutil.copyfile(bomb, path)
        _try_once(reader, root, path, "", tally, "bomb")
    finally:
        path.write_bytes(good)
    return {
        **{"refused": tally.refused, "faults": tally.faults, "examples": tally.examples},
        **{"cpu": round(time.process_time() - begin, 1)},
        **{"before_mb": round(before / 2**20), "peak_mb": round(memory_peak() / 2**20)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000, help="damaged files a reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="readers whose name holds this")
    parser.add_argument("--out", type=Path, help="JSON file of the table, rewritten after every reader")
    parser.add_argument("--no-bombs", action="store_true")
    parser.add_argument("--bombs", default="", help="bombs whose name holds this")
    options = parser.parse_args()
    readers = [reader for reader in READERS if options.only in reader.name]
    result: dict[str, Any] = {"files": options.files, "seed": options.seed, "readers": [], "bombs": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["REPRO_RL_CACHE"] = str(root / "cache")
        make_files(root)
        for reader in readers:
            begin = time.monotonic()
            tally = try_reader(reader, root, options.files, options.seed)
            result["readers"].append(tally.as_row() | {"seconds": round(time.monotonic() - begin, 1)})
            print(
                f"{reader.name:30} {tally.files:6} files, {tally.refused:6} refused, {tally.faults} faults",
                flush=True,
            )
            _write(result, options.out)
        if not options.no_bombs:
            for row in read_bombs(root, readers, options.bombs):
                result["bombs"].append(row)
                _show(row)
                _write(result, options.out)
    worst = max((row.get("peak_mb", MEMORY) for row in result["bombs"]), default=0)
    faults = sum(
        row[kind] for row in result["readers"] for kind in ("tracebacks", "hangs", "unnamed", "silent")
    )
    faults += sum(row.get("faults", 1) for row in result["bombs"])
    print(f"{faults} faults; the most memory for a bomb: {worst} MB of {MEMORY >> 20}")
    return int(bool(faults) or worst > MEMORY >> 20)


def _show(row: dict[str, Any]) -> None:
    found = row.get("died") or "; ".join(row["examples"]) or ("refused" if row["refused"] else "read")
    figures = f"{row.get('cpu', 0):5} s {row.get('peak_mb', 0):5} MB"
    print(f"{row['bomb']:43} {row['reader']:25} {figures}  {found}", flush=True)


def _write(result: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
