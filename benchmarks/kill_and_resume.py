"""Commands that are killed, interrupted, or meet a full or read-only disk, and are repeated: what is lost?

Every trial stops a command at a random moment, and repeats it until it ends by itself. The results are
compared with those of a run that nobody stopped: weights, optimizer, metrics, episodes and evaluations, byte
by byte. Left out are times and, in evaluations, all but three digits of the entropies. A trial fails where
they differ, where a half-written file stays, or where a traceback is shown.

    python benchmarks/kill_and_resume.py                  # 120 kills, 36 interruptions, 36 disks
    python benchmarks/kill_and_resume.py --kills 6 --interrupts 4 --disks 4

Commands run in forks of this process, so that a trial does not wait for imports (POSIX only). Kills come at
the n-th change of the folder (a file opened for writing, renamed, removed or synced), or at a random time.
Disks are tmpfs mounts of a random size where this user may mount them, else every change from the n-th on
raises OSError.
"""

from __future__ import annotations

import argparse
import errno
import gzip
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from forked_commands import failing, run_command, sending, watching

RECIPE: dict[str, Any] = {
    "env": {
        "name": "sokoban",
        "settings": {
            **{"style": "relative", "train_rooms": 8, "validation_rooms": 4, "test_rooms": 6},
            **{"solution": [2, 4], "max_steps": 4},
        },
    },
    "policy": {
        "model": "tiny",
        "device": "cpu",
        "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16, "positions": 128},
    },
    "prompt": {"style": "compact", "resolution": 50, "action_tokens": 3, "reflect_new_tokens": 34},
    "demos": {"expert": 4, "winning": 3, "failing": 3, "wandering": 0.5},
    "warmup": {
        **{"updates": 6, "forward_from": 0, "forward_batch": 4, "reflect_batch": 4, "save_every": 4},
        **{"target_success": 1.0, "check_every": 3},
    },
    "train": {
        **{"iterations": 4, "groups": 2, "group_size": 2, "minibatches": 1, "save_every": 3},
        **{"validate_every": 2, "record_every": 1},
    },
    "alarms": {"patience": 0},
    "eval": {"tasks": 6, "validation_tasks": 4},
}
STAGES = ("demos", "warmup", "train", "eval", "compare", "import")


@dataclass(slots=True)
class Stage:
    """A command with its folder."""

    name: str
    arguments: list[str]  # after repro-rl
    out: str  # the folder that it writes, relative to that of the trial


@dataclass(slots=True)
class Result:
    """What became of the trials of one kind."""

    trials: int = 0
    stopped: int = 0  # those in which the command was really stopped
    failures: list[str] = field(default_factory=list)


def main() -> None:
    options = _options()
    _import_everything()
    base = Path(tempfile.mkdtemp(prefix="repro-rl-trials-"))
    os.environ["REPRO_RL_CACHE"] = str(base / "cache")
    begin, rng = time.monotonic(), random.Random(options.seed)
    try:
        bench = Bench(base, rng)
        results = {
            "SIGKILL": bench.trials(options.stages, options.kills, bench.kill),
            "SIGINT, SIGTERM": bench.trials(options.stages, options.interrupts, bench.interrupt),
            "full, read-only disk": bench.trials(options.stages, options.disks, bench.disk),
        }
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(f"{'':<22} trials  stopped  failed")
    for name, result in results.items():
        print(f"{name:<22} {result.trials:>6}  {result.stopped:>7}  {len(result.failures):>6}")
    cpu = sum(os.times()[:4])
    print(f"{time.monotonic() - begin:.0f} s, {cpu:.0f} s of CPU; kinds of disk: {dict(bench.disks)}")
    failures = [text for result in results.values() for text in result.failures]
    sys.exit(1 if failures else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--interrupts", type=int, default=36)
    parser.add_argument("--disks", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    return parser.parse_args()


def _import_everything() -> None:
    """All that a command imports; forks then have it."""
    for name in ("cli.commands", "demos", "report.comparison", "study.evaluate", "train"):
        importlib.import_module(f"repro_rl.{name}")
    importlib.import_module("transformers.models.qwen3.modeling_qwen3")


class Bench:
    """The stages, their undisturbed results, and the ways to disturb them."""

    def __init__(self, base: Path, rng: random.Random):
        self.base, self.rng = base, rng
        self.disks: Counter[str] = Counter()
        self.stages = {stage.name: stage for stage in _stages()}
        self.seconds: dict[str, float] = {}
        self.changes: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.expected: dict[str, dict[str, Any]] = {}
        self.whole = base / "whole"
        self.whole.mkdir()
        recipe = yaml.safe_dump(RECIPE)
        (self.whole / "small.yaml").write_text(recipe)
        run_command(self.whole, ["data", "webshop", "generate", "--raw", "-o", "raw", "--products", "30"])
        for stage in self.stages.values():
            self._measure(stage)

    def _measure(self, stage: Stage) -> None:
        """The undisturbed run: its results, time, number of changes, and size."""
        counted = self.base / "count"
        counted.write_text("")

        def count(event: str) -> None:
            with open(os.dup(counter), "ab") as handle:
                handle.write(b".")

        counter = os.open(counted, os.O_WRONLY | os.O_APPEND)
        begin = time.monotonic()
        code, text = run_command(self.whole, stage.arguments, watching(self.whole / stage.out, count))
        os.close(counter)
        if code:
            raise SystemExit(f"{stage.name} fails undisturbed: {text}")
        self.seconds[stage.name] = time.monotonic() - begin
        self.changes[stage.name] = counted.stat().st_size
        files = [path for path in (self.whole / stage.out).rglob("*") if path.is_file()]
        self.sizes[stage.name] = sum(-(-path.stat().st_size // 4096) * 4096 for path in files)
        self.expected[stage.name] = results_of(stage.name, self.whole / stage.out)

    def trials(self, stages: list[str], count: int, way: Callable[[Stage, Path], bool]) -> Result:
        """``count`` trials, the stages in turn. ``way`` stops the command, and returns whether it did."""
        result = Result()
        for number in range(count):
            stage = self.stages[stages[number % len(stages)]]
            with self._folder(stage) as folder:
                result.trials += 1
                try:
                    result.stopped += way(stage, folder)
                    self._finish(stage, folder)
                except AssertionError as error:
                    result.failures.append(f"{way.__name__} {number} of {stage.name}: {error}")
                    print(f"FAILED {result.failures[-1]}", flush=True)
        return result

    @contextmanager
    def _folder(self, stage: Stage) -> Iterator[Path]:
        """A folder with what the stage needs of the stages before it."""
        folder = self.base / "trial"
        shutil.copytree(self.whole, folder, ignore=_only_outside(self.whole, stage.out))
        if stage.name == "eval":  # it writes into the folder of the run
            shutil.copytree(self.whole / "train", folder / "train", ignore=shutil.ignore_patterns("eval*"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def _finish(self, stage: Stage, folder: Path) -> None:
        """Repeat the command until it ends by itself, and compare. Raises AssertionError."""
        code, text = run_command(folder, stage.arguments)
        _check(code == 0, f"the repeated command ends with {code}: {text[-600:]}")
        found = results_of(stage.name, folder / stage.out)
        wanted = self.expected[stage.name]
        _check(found.keys() == wanted.keys(), f"other files: {sorted(found.keys() ^ wanted.keys())}")
        different = [name for name in wanted if found[name] != wanted[name]]
        _check(not different, f"different: {different}")
        left = [str(path.relative_to(folder)) for path in folder.rglob(".*") if ".git" not in path.parts]
        _check(not left, f"left behind: {left}")

    # Ways to stop a command -----------------------------------------------------------------------

    def kill(self, stage: Stage, folder: Path) -> bool:
        """SIGKILL, once or several times in a row."""
        stopped = False
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            code, text = self._stop(stage, folder, signal.SIGKILL)
            _check(code in (0, -signal.SIGKILL), f"ends with {code}: {text[-600:]}")
            _check("Traceback" not in text, text[-600:])
            stopped |= code != 0
        return stopped

    def _stop(self, stage: Stage, folder: Path, number: signal.Signals) -> tuple[int, str]:
        """The command with a signal: in three of four trials at a change of its folder, else at some time."""
        if self.rng.random() < 0.75:
            prepare = sending(folder / stage.out, self._moment(stage), number)
            return run_command(folder, stage.arguments, prepare)
        moment = self.rng.uniform(0.05, 0.8) * self.seconds[stage.name]
        return run_command(folder, stage.arguments, after=moment, number=number)

    def interrupt(self, stage: Stage, folder: Path) -> bool:
        """Ctrl-C, or SIGTERM: a sentence, the status, nothing half-written."""
        number = self.rng.choice((signal.SIGINT, signal.SIGTERM))
        code, text = self._stop(stage, folder, number)
        if code == -number and not text:  # before the first line of the command ran
            return False
        _check(code in (0, 128 + number), f"{number.name}: ends with {code}: {text[-600:]}")
        _check("Traceback" not in text, text[-600:])
        if code:
            _check(text.lower().count("half-written") == 1, f"no sentence: {text[-600:]}")
            _check(not list(folder.rglob(".*.tmp")), "half-written files stay")
        return code != 0

    def disk(self, stage: Stage, folder: Path) -> bool:
        """A disk that is too small, read-only, or fails from some moment on."""
        out = folder / stage.out
        kind = self.rng.choice(("full", "read-only", "fails"))
        if kind == "fails" or not _may_mount(self.base):
            kind = "fails"
            number = self.rng.choice((errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO))
            code, text = run_command(folder, stage.arguments, failing(out, self._moment(stage), number))
        else:
            code, text = self._on_small_disk(stage, folder, kind)
        self.disks[kind] += 1
        _check(
            code in (0, 1 if stage.name == "compare" else 2, 2), f"{kind}: ends with {code}: {text[-900:]}"
        )
        _check("Traceback" not in text, f"{kind}: {text[-900:]}")
        if code:
            _check("cannot be" in text or "are free" in text, f"{kind}: no sentence: {text}")
        return code != 0

    def _on_small_disk(self, stage: Stage, folder: Path, kind: str) -> tuple[int, str]:
        """The command on a tmpfs; what it has written there moves back into the folder."""
        out = folder / stage.out
        before = sum(-(-p.stat().st_size // 4096) * 4096 for p in out.rglob("*") if p.is_file())
        least, most = before + 8192, max(self.sizes[stage.name], before + 16384)
        size = self.rng.randrange(least, most) if kind == "full" else 64 << 20
        disk = self.base / "disk"
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        try:
            with suppress(FileNotFoundError):
                shutil.copytree(folder, disk, dirs_exist_ok=True, ignore=_all_but(folder, stage.out))
            for name in os.listdir(folder):  # the rest is read where it is
                if not (disk / name).exists() and name != stage.out:
                    (disk / name).symlink_to(folder / name)
            if kind == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            code, text = run_command(disk, stage.arguments, log=self.base / "log")
            if (disk / stage.out).exists():
                _check(not list((disk / stage.out).rglob(".*.tmp")), f"{kind}: half-written files stay")
                shutil.rmtree(out, ignore_errors=True)
                shutil.copytree(disk / stage.out, out)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        return code, text

    def _moment(self, stage: Stage) -> int:
        return self.rng.randint(1, max(self.changes[stage.name], 1))


def _stages() -> list[Stage]:
    recipe = ["-c", "small.yaml"]
    study = ["compare", "-c", "small.yaml", "-m", "gigpo", "--seeds", "0", "--env-steps", "12", "-o", "study"]
    return [
        Stage("demos", ["demos", *recipe, "-o", "demos"], "demos"),
        Stage("warmup", ["warmup", *recipe, "--demos", "demos", "-o", "warmup"], "warmup"),
        Stage("train", ["train", *recipe, "--init", "warmup/model", "-o", "train"], "train"),
        Stage("eval", ["eval", "train"], "train"),
        Stage("compare", [*study, "demos.wandering=0"], "study"),
        Stage("import", ["data", "webshop", "import", "raw/items_shuffle.json", "-o", "shop"], "shop"),
    ]


def _all_but(folder: Path, name: str) -> Callable[[str, list[str]], list[str]]:
    """For copytree: nothing directly in ``folder`` but ``name``."""
    return lambda here, names: [other for other in names if here == str(folder) and other != name]


def _only_outside(folder: Path, name: str) -> Callable[[str, list[str]], list[str]]:
    """For copytree: all in ``folder`` but ``name``."""
    return lambda here, names: [name] if here == str(folder) else []


def _check(right: bool, text: str) -> None:
    if not right:
        raise AssertionError(text)


def _may_mount(base: Path) -> bool:
    disk = base / "mount"
    disk.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True, check=False)
    if done.returncode == 0:
        subprocess.run(["umount", str(disk)], check=True)
    return done.returncode == 0


# Results ----------------------------------------------------------------------------------------------


def results_of(stage: str, folder: Path) -> dict[str, Any]:
    """What a stage has made, by file; without times."""
    if stage == "demos":
        return {path.name: path.read_bytes() for path in folder.iterdir()}
    if stage == "import":
        files = [path for path in folder.rglob("*") if path.is_file()]
        found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        manifest = json.loads(found["manifest.json"])
        del manifest["source"]["files"]  # where the imported files lay
        return found | {"manifest.json": manifest}
    if stage == "compare":
        runs = [path.parent for path in folder.rglob("metrics.jsonl")]
        return {
            f"{run.relative_to(folder)}/{name}": value
            for run in runs
            for name, value in (results_of("train", run) | results_of("eval", run)).items()
        }
    if stage == "eval":
        files = [*folder.glob("eval/*.json"), *folder.glob("trajectories/eval-*")]
        return {path.name: _content(path) for path in files}
    found: dict[str, Any] = {"metrics": [_timeless(row) for row in _rows(folder / "metrics.jsonl")]}
    last = max((folder / "checkpoints").iterdir())
    for path in [*last.glob("*.safetensors"), *folder.glob("model/*.safetensors")]:
        found[str(path.relative_to(folder))] = path.read_bytes()
    found["state"] = _timeless(json.loads((last / "state.json").read_text()))
    del found["state"]["state_sha256"]  # a sum over the times too
    for path in folder.glob("trajectories/iteration-*"):
        found[path.name] = path.read_bytes()
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".gz":  # a smaller batch may change the last digits of an entropy
        records = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for step in (step for record in records for step in record["steps"]):
            step["entropy"] = round(step["entropy"], 3)
        return records
    return _timeless(json.loads(path.read_text()))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != "seconds" and not k.startswith("time/")}


if __name__ == "__main__":
    main()
