"""Two ranks as real processes give what one gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from repro_rl.config import load_config
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.train import run_training, run_warmup
from support.rank_runs import (
    RUN,
    assert_close_rows,
    assert_close_weights,
    assert_same_records,
    launch,
    metric_rows,
)


@pytest.mark.slow
def test_two_processes_give_what_one_gives_also_when_one_was_killed(warm, tmp_path):
    """Training with rehearsal, killed in iteration 3 and repeated; a warmup; an evaluation."""
    settings = [*warm.settings, *RUN, f"train.init={warm.run}"]
    warmup = [*warm.settings, *RUN, "warmup.updates=4", "warmup.target_success=1", "warmup.check_every=2"]
    config = load_config(None, settings)
    one, two = tmp_path / "one", tmp_path / "two"
    run_training(config, one / "run")
    run_warmup(load_config(None, warmup), warm.demos, one / "warmup")
    last = Path("checkpoints") / "00003"
    judged = evaluate(config, one / "run" / last, EvalRequest("both", out=one / "run"))

    two.mkdir()
    train = {"what": "train", "settings": settings, "out": str(two / "run")}
    killed = launch(tmp_path / "killed.json", {"stages": [train], "fail": [1, 3, "kill"]})
    assert killed.returncode != 0
    assert "process 0: " in killed.stderr
    assert "Process 1 was lost: killed, out of memory, or crashed without a message." in killed.stderr
    assert "Repeat the same command to continue from the last checkpoint" in killed.stderr
    assert [p.name for p in sorted((two / "run" / "checkpoints").iterdir())] == ["00001", "00002"]
    assert len(metric_rows(two / "run")) == 2
    shutil.copytree(two / "run", two / "by-one")

    done = launch(
        tmp_path / "again.json",
        {
            "stages": [
                train,
                {"what": "warmup", "settings": warmup, "demos": str(warm.demos), "out": str(two / "warmup")},
                # the model of one process, so that the episodes can be compared
                {
                    "what": "eval",
                    "settings": settings,
                    "model": str(one / "run" / last),
                    "out": str(two / "run"),
                },
            ]
        },
    )
    assert done.returncode == 0, done.stderr
    for name, rows in (("run-train", (1, 0)), ("warmup-warmup", (4, 0)), ("run-eval", (0, 0))):
        for rank in range(2):  # both were there, and only the first one reported
            report = json.loads((two / f"{name}-{rank}.json").read_text())
            assert report == {"world": 2, "rows": rows[rank]}
    assert json.loads((two / "run" / "manifest.json").read_text())["processes"] == 2

    assert_close_rows(one / "run", two / "run")
    for iteration in (1, 2, 3):
        name = f"iteration-{iteration:05d}.jsonl.gz"
        assert_same_records(one / "run" / "trajectories" / name, two / "run" / "trajectories" / name)
        folder = Path("checkpoints") / f"{iteration:05d}"
        assert_close_weights(one / "run" / folder, two / "run" / folder, warm.model)
        states = [json.loads((run / "run" / folder / "state.json").read_text()) for run in (one, two)]
        assert states[0].pop("seconds") > 0
        assert states[1].pop("seconds") > 0
        assert states[0].pop("state_sha256") != states[1].pop("state_sha256")
        # Sums of the files: weights are equal up to rounding, so their bytes are not.
        assert states[0].pop("files").keys() == states[1].pop("files").keys()
        assert states[0] == states[1]
    assert sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file()) == sorted(
        p.relative_to(two)
        for p in two.rglob("*")
        if p.is_file() and "by-one" not in p.parts and p.parent != two
    )

    # the warmup: the same losses, looks at the validation and weights
    assert_close_rows(one / "warmup", two / "warmup")
    assert [row["validation/success"] for row in metric_rows(two / "warmup") if "validation/success" in row]
    assert_close_weights(one / "warmup" / "model", two / "warmup" / "model", one / "warmup" / "initial")

    # the evaluation: the same episodes and numbers
    shared = json.loads((two / "run" / "eval" / "both.json").read_text())
    assert (shared["episodes"], shared["won"], shared["by_type"]) == (7, judged["won"], judged["by_type"])
    for name in ("digest", "success", "low", "high", "score", "length", "invalid_rate", "progress"):
        assert shared[name] == json.loads(json.dumps(judged[name])), name
    assert_same_records(*(run / "run" / "trajectories" / "eval-both.jsonl.gz" for run in (one, two)))

    # one process takes up what two began
    run_training(config, two / "by-one")
    assert_close_rows(one / "run", two / "by-one")
    assert_close_weights(one / "run" / last, two / "by-one" / last, warm.model)
