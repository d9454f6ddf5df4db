"""Run folders: settings, manifest and metrics of a run that may be continued."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from repro_rl.config import load_config, parse_config, read_settings
from repro_rl.errors import ConfigError, DataError
from repro_rl.interrupts import Interrupted, handled
from repro_rl.run.folder import (
    MetricsLog,
    check_run,
    flatten,
    git_revision,
    open_run,
    write_manifest,
)
from repro_rl.train.sft import FREE_ON_CONTINUE as warmup_free
from repro_rl.train.start import FREE_ON_CONTINUE


def test_metrics_log_drops_half_lines_and_what_comes_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 1, "a": 0.5}\n{"iteration": 2}\n{"iteration": 3}\n{"iterat')
    log = MetricsLog(tmp_path, 2)
    assert [row["iteration"] for row in log.rows] == [1, 2]
    log.add({"iteration": 3, "new": True})
    lines = path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"iteration": 1, "a": 0.5},
        {"iteration": 2},
        {"iteration": 3, "new": True},
    ]
    MetricsLog(tmp_path, 0)
    assert path.read_text() == ""
    fresh = MetricsLog(tmp_path / "new", 5)
    fresh.add({"iteration": 1})
    assert (tmp_path / "new" / "metrics.jsonl").read_text() == '{"iteration": 1}\n'


def test_open_run_refuses_other_settings(tmp_path):
    base = ["train={lr: 5e-4}", "env.settings={style: relative}"]
    config = load_config(None, base)
    assert open_run(tmp_path, config) is False
    assert open_run(tmp_path, config) is False  # nothing was done yet
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert open_run(tmp_path, config) is True
    changed = load_config(None, [*base, "train.lr=1e-3", "env.settings.max_steps=20", "train.iterations=99"])
    with pytest.raises(ConfigError) as caught:
        open_run(tmp_path, changed, free=FREE_ON_CONTINUE)
    text = str(caught.value)
    assert "train.lr: 0.0005 there, 0.001 now" in text
    assert "env.settings.max_steps: None there, 20 now" in text
    assert "iterations" not in text
    more = load_config(None, [*base, "train.iterations=99", "alarms.patience=0", "train.keep=7"])
    assert open_run(tmp_path, more, free=FREE_ON_CONTINUE) is True
    assert parse_config(yaml.safe_load((tmp_path / "config.yaml").read_text())) == more
    with pytest.raises(ConfigError, match=r"train\.iterations"):
        open_run(tmp_path, config)


def test_opening_a_run_sweeps_half_written_files(tmp_path):
    open_run(tmp_path, load_config(None))
    left = [
        tmp_path / name for name in (".metrics.jsonl.9.tmp", "trajectories/.a.gz.9.tmp", "eval/.b.json.9.tmp")
    ]
    kept = [tmp_path / name for name in ("metrics.jsonl", "trajectories/a.gz", "eval/b.json")]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / ".initial.9.tmp").mkdir()
    open_run(tmp_path, load_config(None))
    assert not any(path.exists() for path in (*left, tmp_path / ".initial.9.tmp"))
    assert all(path.exists() for path in kept)


def test_a_start_that_failed_binds_nothing(tmp_path):
    """Settings bind from the first row or checkpoint on; what was made for others is made again."""
    first, corrected = (load_config(None, [f"warmup.lr={lr}"]) for lr in ("1e-3", "2e-3"))
    open_run(tmp_path, first)
    (tmp_path / "initial").mkdir()
    (tmp_path / "manifest.json").write_text('{"seed": 7}')
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").touch()
    assert open_run(tmp_path, corrected) is False
    assert read_settings(tmp_path / "config.yaml")["warmup"]["lr"] == 2e-3
    assert not (tmp_path / "initial").exists()
    assert not (tmp_path / "manifest.json").exists()
    (tmp_path / "checkpoints" / "00001").mkdir()
    with pytest.raises(ConfigError, match=r"warmup\.lr: 0\.002 there, 0\.001 now"):
        check_run(tmp_path, first)


def test_a_check_writes_nothing(tmp_path):
    assert check_run(tmp_path / "run", load_config(None)) is False
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_user_is_not_taken_for_the_settings_of_a_failed_start(tmp_path):
    (tmp_path / "config.yaml").write_text("base: sokoban-tiny\ntrain: {lr: 1.0e-3}\n")
    with pytest.raises(ConfigError, match="is not the settings of a run"):
        open_run(tmp_path, load_config(None))


def test_work_without_settings_is_not_written_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"iteration": 1}\n')
    with pytest.raises(ConfigError, match=r"config\.yaml is missing"):
        open_run(tmp_path, load_config(None))


@pytest.mark.parametrize(
    ("free", "changes"),
    [
        (
            warmup_free,
            ["eval.tasks=7", "eval.temperature=1", "train.lr=1e-9", "method=gigpo", "demos.expert=1"],
        ),
        (FREE_ON_CONTINUE, ["eval.tasks=7", "eval.temperature=1", "warmup.lr=1e-9", "demos.expert=1"]),
    ],
)
def test_settings_of_other_commands_do_not_bind(tmp_path, free, changes):
    open_run(tmp_path, load_config(None))
    (tmp_path / "metrics.jsonl").write_text("{}")
    assert check_run(tmp_path, load_config(None, changes), free=free)
    for own in ("eval.validation_tasks=3", "prompt.history=9", "seed=5", "policy.threads=2"):
        with pytest.raises(ConfigError, match=own.partition("=")[0].replace(".", r"\.")):
            check_run(tmp_path, load_config(None, [*changes, own]), free=free)


def test_what_cuts_the_work_to_fit_into_memory_may_change(tmp_path):
    open_run(tmp_path, load_config(None))
    (tmp_path / "metrics.jsonl").write_text("{}")
    changes = ["train.micro_tokens=512", "train.gradient_checkpointing=true", "policy.max_batch_tokens=1024"]
    with pytest.warns(UserWarning, match=r"(?s)equal but for rounding:\n.*micro_tokens: 3072 there, 512 now"):
        assert check_run(tmp_path, load_config(None, changes))
    with pytest.raises(ConfigError, match=r"other settings:\n  train\.lr: .*\nUse another folder") as caught:
        check_run(tmp_path, load_config(None, [*changes, "train.lr=0.5"]))
    assert "micro_tokens" not in str(caught.value)
    # Masks of an adapter's dropout depend on the cut.
    dropping = ["policy.lora.rank=2", "policy.lora.dropout=0.1"]
    open_run(tmp_path / "dropping", load_config(None, dropping))
    (tmp_path / "dropping" / "metrics.jsonl").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"(?s)train\.micro_tokens: 3072 there, 512 now.*fixed here.*dropout"
    ):
        check_run(tmp_path / "dropping", load_config(None, [*dropping, changes[0]]))


def test_a_change_of_memory_settings_is_noted_and_can_be_taken_back(tmp_path):
    first = load_config(None)
    open_run(tmp_path, first)
    (tmp_path / "metrics.jsonl").write_text("{}")
    write_manifest(tmp_path, {"seed": 0})
    for settings in (["policy.max_cache_tokens=1024"], []):
        with pytest.warns(UserWarning, match="max_cache_tokens"):
            open_run(tmp_path, load_config(None, settings))
    open_run(tmp_path, first)
    most = first.policy.max_cache_tokens
    changes = json.loads((tmp_path / "manifest.json").read_text())["memory_changes"]
    assert changes == [{"policy.max_cache_tokens": pair} for pair in ([most, 1024], [1024, most])]


def test_a_run_continues_from_another_directory(tmp_path, monkeypatch):
    """The paths are typed anew, relative to where the command is repeated; the folder keeps its own."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "warm").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(project)
    run = project / "run"
    config = load_config(None, ["train.init=warm"])
    open_run(run, config)
    write_manifest(run, {"started": "a", "git": None, "versions": {}})
    (run / "metrics.jsonl").write_text("{}")
    monkeypatch.chdir(elsewhere)
    assert open_run(run, load_config(None, ["train.init=../project/warm"])) is True
    assert open_run(run, load_config(None, [f"train.init={project / 'warm'}"])) is True
    monkeypatch.chdir(project)
    assert open_run(run, config) is True
    with pytest.raises(ConfigError, match=r"train\.init"):
        open_run(run, load_config(None, ["train.init=other"]))


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_manifest_is_kept(tmp_path):
    first = {"started": "a", "git": None, "versions": {}, "seed": 1}
    write_manifest(tmp_path, first)
    write_manifest(tmp_path, first | {"started": "b", "seed": 2})
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["started"] == "a"
    assert content["seed"] == 1
    assert content["continued"] == [{"started": "b", "git": None, "versions": {}}]
    assert not Path(content["paths_from"]).is_absolute()


ROWS = [json.dumps({"iteration": n}).encode() for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "bad",
    [
        ROWS[1].replace(b":", b";"),  # one flipped bit
        b"\xff" + ROWS[1],
        b"7",
        b"{}",
        b'{"iteration": "2"}',
        b'{"iteration": 2.5}',
        b'{"iteration": null}',
        b"[" * 5000,
        b'{"iteration": ' + b"9" * 400 + b"}",
    ],
)
def test_a_row_that_cannot_be_read_is_kept_aside_and_told_once(tmp_path, bad):
    path, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.unreadable.jsonl"
    path.write_bytes(b"\n".join([ROWS[0], bad, ROWS[2], b'{"iter']))
    with pytest.raises(
        DataError, match=r"(?s)metrics\.jsonl, record line 2.*moved to .*unreadable\.jsonl.*repeat"
    ):
        MetricsLog(tmp_path, 9)
    assert aside.read_bytes() == bad + b"\n"
    assert path.read_bytes() == ROWS[0] + b"\n" + ROWS[2] + b"\n"
    assert [row["iteration"] for row in MetricsLog(tmp_path, 9).rows] == [1, 3]
    path.write_bytes(b"more\nand more\n" + ROWS[0] + b"\n")
    with pytest.raises(DataError, match=r"record line 1: not JSON.* \(1 more lines are as bad\)"):
        MetricsLog(tmp_path, 9)
    assert aside.read_bytes() == bad + b"\nmore\nand more\n"  # nothing of before is lost


def test_rows_with_nan_are_read_and_written_again(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.add({"iteration": 1, "loss": float("nan")})
    again = MetricsLog(tmp_path, 1)
    assert again.rows[0]["loss"] != again.rows[0]["loss"]


@pytest.mark.parametrize("text", ["{", "[]", '{"continued": 3}', '{"continued": [1]}', ""])
def test_a_broken_manifest_is_an_error_and_stays_as_it_is(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        write_manifest(tmp_path, {"started": "a", "git": None, "versions": {}})
    assert (tmp_path / "manifest.json").read_text() == text


@pytest.mark.parametrize(
    "data", [b"seed: 1\n  }: [\n", b"seed: 1 # caf\xe9\n", b"- 1\n", b"a: [" + b"[" * 5000, b"7: x\n"]
)
def test_broken_settings_are_named_when_a_run_continues(tmp_path, data):
    config = load_config(None)
    open_run(tmp_path, config)
    (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        open_run(tmp_path, config)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(tmp_path / "config.yaml", ["seed=2"])


def test_a_signal_does_not_leave_git_behind(monkeypatch):
    """It arrives inside subprocess.run, and is raised when git has ended."""
    ended = []
    run = subprocess.run

    def signalled(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        ended.append(run(*arguments, **options))
        return ended[-1]

    monkeypatch.setattr(subprocess, "run", signalled)
    with pytest.raises(Interrupted), handled():
        git_revision()
    assert len(ended) == 1
