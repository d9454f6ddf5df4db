"""The real packages: a killed run that goes on is one run there, with every row once (make trackers-check).

Those that are not installed are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from repro_rl.config import dump_config, load_config
from support import tracked_run

INSTALLED = [name for name in ("tensorboard", "wandb", "mlflow", "trackio") if find_spec(name) is not None]
ROWS = 4
RUN = [
    *("train.groups=2", "train.group_size=2", "train.minibatches=1", "train.epochs=1"),
    *(f"train.iterations={ROWS}", "train.save_every=2", "train.validate_every=0", "train.record_every=1"),
    "train.tracking={project: checks, offline: true, episodes: 2, episodes_every: 2}",
]
SOURCE = Path(__file__).parents[3]


def command(folder: Path, config: Any, out: str, *more: str, kill: int = 0) -> int:
    """Run the process once, its output into ``folder/output.txt``; returns its exit status."""
    (folder / "settings.yaml").write_text(dump_config(config))
    variables = {
        **os.environ,
        tracked_run.KILL: str(kill),
        "PYTHONPATH": os.pathsep.join([str(SOURCE / "src"), str(SOURCE / "tests")]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    with (folder / "output.txt").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-m", "support.tracked_run", "settings.yaml", out, *more],
            cwd=folder,
            env=variables,
            stdout=log,
            stderr=log,
            check=False,
        )
    return done.returncode


@pytest.fixture(scope="module")
def tracked(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which ``run`` was killed after row 3, its checkpoint being of row 2, and then finished;
    and ``warmup``, which was killed and finished too."""
    if not INSTALLED:
        pytest.skip("no tracker is installed here: make trackers-check has all of them")
    folder = tmp_path_factory.mktemp("tracked")
    trackers = f"train.trackers=[{', '.join(INSTALLED)}]"
    killer = "train.callbacks=['support.tracked_run:Killer']"
    common = [*warm.settings, *RUN, trackers, killer, f"train.init={warm.model}"]
    config = load_config(None, common)
    warmup = load_config(
        None,
        [*common, "warmup={updates: 4, forward_batch: 2, reflect_batch: 2, forward_from: 0, save_every: 2}"],
    )
    for settings, out, more in ((config, "run", ()), (warmup, "warmup", (str(warm.demos),))):
        assert command(folder, settings, out, *more, kill=3) == 137, (folder / "output.txt").read_text()
        assert command(folder, settings, out, *more) == 0, (folder / "output.txt").read_text()
    return folder


def logged(folder: Path, out: str = "run") -> dict[int, dict[str, Any]]:
    """The rows of metrics.jsonl by iteration."""
    lines = (folder / out / "metrics.jsonl").read_text().splitlines()
    return {row["iteration"]: row for row in map(json.loads, lines)}


def check_series(found: dict[str, list[tuple[int, float]]], rows: dict[int, dict[str, Any]]) -> None:
    """Every metric of every row by its name, each step once; those of row 3 may be of the killed process."""
    assert [step for step, _ in found["iteration"]] == list(range(1, ROWS + 1))
    times = ("seconds", "time/rollout", "time/update")
    for step, row in rows.items():
        for name, value in row.items():
            values = [v for s, v in found[name] if s == step]
            assert len(values) == 1, (name, step)
            if name not in times:
                assert values[0] == pytest.approx(value, rel=1e-6), (name, step)


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        name not in INSTALLED, reason=f"{name} is not installed here: make trackers-check has it"
    )


@needs("tensorboard")
@pytest.mark.parametrize("out", ["run", "warmup"])
def test_tensorboard(tracked, out):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked / out / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    series = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    check_series(series, logged(tracked, out))
    texts = {name.partition("/")[0] for name in events.Tags()["tensors"]}
    assert texts == ({"settings", "episodes"} if out == "run" else {"settings"})
    if out == "run":
        (table,) = [n for n in events.Tags()["tensors"] if n.startswith("episodes")]
        shown = {e.step: e.tensor_proto.string_val[0].decode() for e in events.Tensors(table)}
        assert sorted(shown) == [1, 2, 4]
        assert shown[4].startswith("|task|rollout|won|")
        assert len(shown[4].splitlines()) == 4


@needs("wandb")
@pytest.mark.parametrize("out", ["run", "warmup"])
def test_wandb(tracked, out):
    from repro_rl.run.trackers.wandb_file import history

    key = json.loads((tracked / out / "trackers.json").read_text())["wandb"]
    rows = history(tracked / out / "wandb", key)
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            series.setdefault(name, []).append((row["_step"], value))
    check_series(series, logged(tracked, out))
    folders = {path.name.rpartition("-")[2] for path in (tracked / out / "wandb").glob("offline-run-*")}
    assert folders == {key}, "one run, whatever the number of commands"
    if out == "run":
        tables = list((tracked / out / "wandb").glob("*/files/media/table/episodes_*.table.json"))
        assert json.loads(tables[0].read_text())["columns"][:3] == ["task", "rollout", "won"]


@needs("mlflow")
@pytest.mark.parametrize("out", ["run", "warmup"])
def test_mlflow(tracked, out):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    (run,) = [
        run
        for run in client.search_runs([client.get_experiment_by_name("checks").experiment_id])
        if run.info.run_name == out
    ]
    assert run.info.status == "FINISHED"
    series = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    check_series(series, logged(tracked, out))
    assert run.data.params["train.groups"] == "2"
    names = [file.path for file in client.list_artifacts(run.info.run_id, "episodes")]
    assert len(names) == (3 if out == "run" else 0)


@needs("trackio")
@pytest.mark.parametrize("out", ["run", "warmup"])
def test_trackio(tracked, out, monkeypatch):
    code = (
        "import json, sys; from trackio.sqlite_storage import SQLiteStorage as S; "
        "print(json.dumps({run: S.get_logs('checks', run) for run in S.get_runs('checks')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRACKIO_DIR": str(tracked / "trackio")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {name: rows for name, rows in json.loads(done.stdout).items() if name.startswith(f"{out}-")}
    (rows,) = found.values()
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float):
                series.setdefault(name, []).append((row["step"], value))
    check_series(series, logged(tracked, out))


@needs("mlflow")
def test_a_server_that_is_not_there_does_not_stop_a_run(warm, tmp_path):
    config = load_config(
        None,
        [
            *(*warm.settings, *RUN, f"train.init={warm.model}", "train.trackers=[mlflow]"),
            *("train.tracking.address=http://127.0.0.1:9", "train.iterations=2"),
        ],
    )
    assert command(tmp_path, config, "run") == 0
    output = (tmp_path / "output.txt").read_text()
    assert len(logged(tmp_path)) == 2
    assert output.count("Callback mlflow: on_start failed") == 1
    assert "2 rows not sent" in output
    assert output.count("failed:") == 2, output
