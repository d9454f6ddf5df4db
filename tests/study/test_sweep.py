"""Settings are chosen once, when the whole grid has finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from repro_rl.files import write_json, write_text
from repro_rl.study import runner
from repro_rl.study.definition import load_study
from repro_rl.study.jobs import Job, sweep_jobs
from repro_rl.study.sweep import choose


def test_the_sweep_waits_for_the_whole_grid_and_then_stays(tmp_path):
    sweep = {"seeds": [9], "knobs": {"train.lr": [0.1, 0.2]}, "last": 2}
    arms: list[Any] = ["repro", {"name": "repro-no-shaping", "tuned_as": "repro"}]
    study = load_study(None, methods=arms, seeds=[0], sweep=sweep)
    jobs = [job for job in sweep_jobs(study, tmp_path) if job.stage == "sweep"]
    assert [job.name for job in jobs] == ["sweep-repro-lr-0.1-seed9", "sweep-repro-lr-0.2-seed9"]

    def finish(job: Job, successes: Sequence[float]) -> None:
        rows = [
            {"iteration": n, "env_steps": n, "seconds": n, "validation/success": s}
            for n, s in enumerate(successes, 1)
        ]
        write_text(job.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        commands = [runner.portable(tmp_path, command) for command in job.commands]
        write_json(runner.record_file(tmp_path, job), {"status": "finished", "commands": commands})

    finish(jobs[0], [0.9, 0.2, 0.2])  # the last two count: .2
    assert choose(study, tmp_path) == {}
    finish(jobs[1], [0.0, 0.2, 0.3])  # .25
    assert choose(study, tmp_path) == {"repro": {"train.lr": 0.2}, "repro-no-shaping": {"train.lr": 0.2}}
    finish(jobs[0], [0.9, 0.9, 0.9])
    assert choose(study, tmp_path)["repro"] == {"train.lr": 0.2}
