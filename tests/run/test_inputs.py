"""What a run was made from: a continuation must have the same."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from repro_rl.config import RunConfig, load_config
from repro_rl.demos.store import demos_digest
from repro_rl.errors import CheckpointError, ConfigError, DataError
from repro_rl.files.names import EXPERT_FILE, LABELLED_FILE
from repro_rl.run.inputs import DEMOS_DIGEST, check_same_demos, check_same_panels
from repro_rl.run.setup import Setup, set_up
from repro_rl.train import RLRun, run_training, run_warmup
from repro_rl.train.start import find_start

RUN = [
    *("train.groups=2", "train.group_size=2", "train.minibatches=1", "train.epochs=1", "train.iterations=1"),
    *("train.validate_every=0", "eval.validation_tasks=2"),
]
WARMUP = "warmup={updates: 2, forward_batch: 2, reflect_batch: 2, forward_from: 0}"


def write_manifest(run: Path, **content: Any) -> None:
    run.mkdir(exist_ok=True)
    (run / "manifest.json").write_text(json.dumps(content))


def change_manifest(run: Path, **content: Any) -> None:
    found = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(found | content))


def fewer_episodes(folder: Path, name: str) -> None:
    """Leave out the last episode of one file."""
    lines = gzip.decompress((folder / name).read_bytes()).splitlines(keepends=True)
    (folder / name).write_bytes(gzip.compress(b"".join(lines[:-1])))


def test_the_digest_of_demonstrations_is_of_their_content(tmp_path: Path) -> None:
    for name, text in ((EXPERT_FILE, b"a\n"), (LABELLED_FILE, b"b\n")):
        (tmp_path / name).write_bytes(gzip.compress(text, 1, mtime=5))
    first = demos_digest(tmp_path)
    (tmp_path / EXPERT_FILE).write_bytes(gzip.compress(b"a\n", 9, mtime=7))
    assert demos_digest(tmp_path) == first
    (tmp_path / LABELLED_FILE).write_bytes(gzip.compress(b"c\n"))
    assert demos_digest(tmp_path) != first


def test_other_demonstrations_are_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    check_same_demos(run, Path("b"), "2" * 64)  # no manifest
    write_manifest(run, demos="a")  # of an older version
    check_same_demos(run, Path("b"), "2" * 64)
    write_manifest(run, demos="a", demos_digest="1" * 64)
    check_same_demos(run, Path("moved"), "1" * 64)
    with pytest.raises(ConfigError, match=r"from a with content 1{12}, while b has content 2{12} now\. "):
        check_same_demos(run, Path("b"), "2" * 64)


@pytest.mark.parametrize("name", [EXPERT_FILE, LABELLED_FILE])
def test_a_warmup_continues_on_its_own_demonstrations_alone(warm: Any, tmp_path: Path, name: str) -> None:
    config, out = load_config(None, [*warm.settings, WARMUP]), tmp_path / "warmup"
    for folder in ("demos", "moved"):
        shutil.copytree(warm.demos, tmp_path / folder)
    run_warmup(config, tmp_path / "demos", out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest[DEMOS_DIGEST] == demos_digest(warm.demos)
    assert run_warmup(config, tmp_path / "moved", out) == out / "model"
    fewer_episodes(tmp_path / "demos", name)
    with pytest.raises(ConfigError, match="was made from other demonstrations"):
        run_warmup(config, tmp_path / "demos", out)
    del manifest[DEMOS_DIGEST]  # as an older version wrote it
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert run_warmup(config, tmp_path / "demos", out) == out / "model"


def test_other_tasks_are_named(tmp_path: Path) -> None:
    run, now = tmp_path / "run", {"train": {"digest": "2" * 64, "size": 7}}
    check_same_panels(run, now)  # no manifest
    write_manifest(run, started="before there were panels in it")
    check_same_panels(run, now)
    write_manifest(run, panels={"validation": {"digest": "1" * 64}})
    check_same_panels(run, now)  # it was not recorded
    write_manifest(run, panels={"train": {"digest": "2" * 64, "label": "x", "size": 7}})
    check_same_panels(run, now)
    write_manifest(run, panels={"train": {"digest": "1" * 64, "label": "x", "size": 7}})
    with pytest.raises(ConfigError, match=r"the train panel .* digest 2{12} now, 1{12} in .*manifest\.json"):
        check_same_panels(run, now)
    write_manifest(run, panels=[1])
    with pytest.raises(DataError, match=r"manifest\.json"):
        check_same_panels(run, now)


def continued(warm: Any, trained: Path, *more: str) -> RunConfig:
    """The settings of ``trained``; its init is a folder of checkpoints."""
    made_from = [f"train.init={trained.with_name('warm')}", f"train.demos={warm.demos}"]
    return load_config(None, [*warm.settings, *RUN, *made_from, *more])


@pytest.fixture(scope="module")
def trained(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one iteration."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(warm.model, folder / "warm" / "checkpoints" / "00001")
    run_training(continued(warm, folder / "run"), folder / "run")
    return folder / "run"


def test_training_continues_on_its_own_tasks_alone(warm: Any, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    # settings of other commands may change, and with them the size of their panels
    config = continued(warm, trained, "eval.tasks=3")
    run_training(config, run)
    panels = json.loads((run / "manifest.json").read_text())["panels"]
    for name in ("train", "validation"):
        change_manifest(run, panels={**panels, name: {**panels[name], "digest": "0" * 64}})
        with pytest.raises(ConfigError, match=f"the {name} panel has other tasks"):
            run_training(config, run)


def test_training_rehearses_the_same_demonstrations(warm: Any, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    assert json.loads((run / "manifest.json").read_text())[DEMOS_DIGEST] == demos_digest(warm.demos)
    change_manifest(run, demos_digest="0" * 64)
    with pytest.raises(ConfigError, match=r"other demonstrations: with content 0{12}, while .*/demos has"):
        run_training(continued(warm, trained), run)


class _Found(Exception):
    """The reference model that would be loaded."""


def test_a_reference_stays_although_its_run_has_a_newer_checkpoint(
    warm: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reference(setup: Setup, policy: Any, warm_start: Path) -> None:
        raise _Found(warm_start)

    monkeypatch.setattr(Setup, "reference", reference)
    first = trained.with_name("warm") / "checkpoints" / "00001"
    run, newer = shutil.copytree(trained, tmp_path / "run"), first.with_name("00002")
    shutil.copytree(first, newer)
    weights = newer / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"0")
    try:
        assert find_start(set_up(continued(warm, trained)), tmp_path / "new").warm_start == newer
        with pytest.raises(_Found) as caught:
            RLRun(set_up(continued(warm, trained)), run)
        assert caught.value.args == (first,)
        change_manifest(run, start={"model": str(newer), "fingerprint": "0" * 16})
        with pytest.raises(CheckpointError, match="which has other weights now"):
            RLRun(set_up(continued(warm, trained)), run)
    finally:
        shutil.rmtree(newer)
