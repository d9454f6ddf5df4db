"""``repro-rl compare``: its plan, its runs (real ones, tiny), its tables on outcomes worked by hand."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import run_command
from repro_rl.cli import main
from repro_rl.config import recipes
from repro_rl.errors import ConfigError, DataError
from repro_rl.files import write_json, write_text
from repro_rl.methods import METHODS
from repro_rl.report.comparison import as_html, as_markdown, write_comparison
from repro_rl.rollout.record import write_records
from repro_rl.study import runner
from repro_rl.study.comparison import compare
from repro_rl.study.jobs import Job, final_jobs, sweep_jobs
from repro_rl.study.plan import SPECIAL, grid, load_study, studies
from repro_rl.study.sweep import choose

SMALL = {
    "env": {
        "name": "sokoban",
        "settings": {
            **{"style": "relative", "train_rooms": 8, "validation_rooms": 4, "test_rooms": 4},
            **{"solution": [2, 4], "max_steps": 4},
        },
    },
    "policy": {
        "model": "tiny",
        "device": "cpu",
        "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16, "positions": 128},
    },
    "prompt": {"style": "compact", "resolution": 50, "action_tokens": 3, "reflect_new_tokens": 34},
    "demos": {"expert": 2, "winning": 2, "failing": 2},
    "warmup": {"updates": 2, "forward_from": 0, "forward_batch": 4, "reflect_batch": 4},
    "train": {"groups": 2, "group_size": 2, "minibatches": 1, "eval_every": 1, "record_every": 0},
    "eval": {"tasks": 4, "validation_tasks": 4},
}


# The plan -----------------------------------------------------------------------------------------


def shared_start(jobs: Sequence[Job], seed: int) -> set[tuple[str, ...]]:
    return {job.after for job in jobs if job.stage == "final" and job.seed == seed}


@pytest.mark.parametrize("name", studies())
def test_shipped_studies_are_complete(name, tmp_path):
    study = load_study(name)
    assert study.recipe in recipes()
    arms = {item.name for item in study.methods}
    wanted = "grpo gigpo hgpo rloo meta l1 l2 repro repro-act oracle oracle-act linear warmup-only"
    ablations = "repro-no-warmup repro-no-alignment repro-no-shaping repro-no-anchor"
    assert set(wanted.split()) | set(ablations.split()) <= arms
    jobs = final_jobs(study, tmp_path, {})
    assert len([job for job in jobs if job.stage == "warm"]) == len(study.seeds)
    assert len([job for job in jobs if job.stage == "final"]) == len(arms) * len(study.seeds)
    for seed in study.seeds:
        assert shared_start(jobs, seed) == {(f"warm-seed{seed}",)}
    budgets = {job.env_steps for job in jobs if job.stage == "final"}
    assert budgets == {study.env_steps}


def test_every_method_and_special_arm_goes_by_its_name():
    study = load_study(None, methods=[*METHODS.names(), *SPECIAL])
    by_name = {item.name: item for item in study.methods}
    assert by_name["gigpo"].method == "gigpo"
    assert not by_name["warmup-only"].train
    assert by_name["repro-no-warmup"].init == "untrained"
    assert by_name["repro-no-warmup"].set == ["method.rehearsal=0"]  # or it would be taught all the same
    assert by_name["repro-no-rehearsal"].init == "warm"


def test_commands_differ_only_where_the_arms_do(tmp_path):
    more = {"name": "repro-b2", "method": "repro", "set": ["method.beta=2"]}
    study = load_study(
        None,
        methods=["repro", more, "repro-no-warmup", "warmup-only"],
        seeds=[7],
        env_steps=1000,
        set=["train.lr=0.1"],
    )
    jobs = {job.name: job for job in final_jobs(study, tmp_path, {"repro": {"method.gamma": 0.9}})}
    warm = str(tmp_path / "warm" / "seed7" / "warmup")
    train, evaluate = jobs["run-repro-seed7"].commands
    # 64 groups of 8 episodes have at least 512 steps: 2 iterations cannot stop before 1000 steps.
    assert train == (
        *("train", "-c", "sokoban-tiny", "--method", "repro", "--init", f"{warm}/model"),
        *("-o", str(tmp_path / "runs" / "repro" / "seed7")),
        *("seed=7", "alarms.patience=0", "train.env_steps=1000", "train.iterations=2"),
        *("train.lr=0.1", "method.gamma=0.9"),
    )
    assert evaluate[:2] == ("eval", str(tmp_path / "runs" / "repro" / "seed7"))
    assert jobs["run-repro-b2-seed7"].commands[0][-1] == "method.beta=2"
    assert f"{warm}/initial" in jobs["run-repro-no-warmup-seed7"].commands[0]
    (only,) = jobs["run-warmup-only-seed7"].commands
    assert only[:2] == ("eval", f"{warm}/model")
    for command in jobs["warm-seed7"].commands:
        assert not any(word.startswith(("train.", "method.")) for word in command)


def test_an_arm_that_changes_the_warm_start_gets_its_own(tmp_path):
    linear = {"name": "linear-labels", "method": "repro", "set": {"demos.annotator": "linear"}}
    study = load_study(None, methods=["repro", linear], seeds=[0])
    jobs = {job.name: job for job in final_jobs(study, tmp_path, {})}
    assert jobs["run-repro-seed0"].after == ("warm-seed0",)
    assert jobs["run-linear-labels-seed0"].after == ("warm-linear-labels-seed0",)
    assert "demos.annotator=linear" in jobs["warm-linear-labels-seed0"].commands[0]


def test_the_grid_holds_only_knobs_that_matter():
    sweep = {
        "seeds": [9],
        "knobs": {"method.gamma": [0.5, 0.9], "method.beta": [1, 2], "method.advantage_on": ["all", "split"]},
    }
    study = load_study(None, methods=["grpo", "gigpo", "repro", "oracle-act", "warmup-only"], sweep=sweep)
    sizes = {item.name: len(grid(study, item)) for item in study.methods}
    assert sizes == {"grpo": 1, "gigpo": 2, "repro": 8, "oracle-act": 4, "warmup-only": 0}


@pytest.mark.parametrize(
    ("changes", "needles"),
    [
        ({"methods": ["repo"]}, ["Unknown method 'repo'", "did you mean 'repro'"]),
        ({"methods": ["repro", "repro"]}, ["method repro is there twice"]),
        ({"methods": [{"name": "a/b", "method": "repro"}]}, ["'a/b'", "folder"]),
        ({"methods": [{"name": "x", "method": "repro", "sett": []}]}, ["sett", "did you mean 'set'"]),
        (
            {"methods": [{"name": "x", "method": "repro", "set": ["train.lrr=1"]}]},
            ["Arm 'x'", "did you mean 'lr'"],
        ),
        ({"set": ["method.alignment=orcale"]}, ["method.alignment is 'orcale'", "did you mean 'oracle'"]),
        ({"set": ["seed=3"]}, ["'seed'", "use seeds"]),
        ({"references": ["gigpo"]}, ["unknown arm 'gigpo'"]),
        ({"seeds": [1, 100], "sweep": {"knobs": {"train.lr": [0.1]}}}, ["share [100]"]),
        ({"sweep": {"knobs": {"train.lr": [0.1]}, "set": ["demos.expert=1"]}}, ["sweep.set", "warm start"]),
        ({"methods": [{"name": "x", "method": "repro", "tuned_as": "y"}]}, ["no other arm 'y'"]),
    ],
)
def test_mistakes_in_a_study_are_named(changes, needles):
    with pytest.raises(ConfigError) as error:
        load_study(None, **({"methods": ["repro"]} | changes))
    for needle in needles:
        assert needle in str(error.value)


def test_an_unknown_study_is_named(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'sokoban'"):
        load_study("sokobann")
    with pytest.raises(ConfigError, match="No study file"):
        load_study(str(tmp_path / "none.yaml"))


# Running ------------------------------------------------------------------------------------------


class Forked:
    """A command in a copy of this process: what a new one does, without seconds of imports."""

    def __init__(self, command: Sequence[str], log: io.BufferedWriter):
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            sys.argv = ["repro-rl", *command]
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float | None = None) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code


@pytest.fixture
def imported(tiny_folder: Path) -> None:
    """All that a command imports, down to the model's own module; forks then have it."""
    from repro_rl.policy import TransformersPolicy

    for name in ("demos", "report.comparison", "study.evaluate", "train.loop", "train.warmup"):
        importlib.import_module(f"repro_rl.{name}")

    TransformersPolicy.load(tiny_folder, device="cpu", training=True)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "launch", lambda command, log, lock: Forked(command, log))
    monkeypatch.setattr(runner, "POLL", 0.02)


def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    return run_command(capsys, monkeypatch, "compare", *words)


@pytest.mark.usefixtures("imported", "forked")
def test_a_whole_comparison(tmp_path, capsys, monkeypatch):
    """Two methods and two seeds for real: run, repeated, added to, one run failing, swept settings used."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(SMALL))
    study: dict[str, Any] = {
        "recipe": "small.yaml",
        "methods": ["repro", "gigpo"],
        "seeds": [0, 1],
        "env_steps": 20,
        "sweep": {"seeds": [5], "env_steps": 5, "knobs": {"train.lr": [0.001, 0.01]}, "last": 1},
    }
    # A run that fails stops no other.
    broken = {"name": "broken", "method": "gigpo", "init": "./nowhere/model", "tuned_as": "gigpo"}
    Path("study.yaml").write_text(yaml.safe_dump({**study, "methods": ["repro", "gigpo", broken]}))
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out", "--jobs", "2")
    assert code == 1, text
    assert "FAILED run-broken-seed0" in text
    assert "No folder ./nowhere/model" in text
    assert "2 failed, 0 not run" in text
    assert text.count("finished warm-seed") == 3
    assert "broken: no result for seed 0, 1" in text

    out = Path("out")
    choice = json.loads((out / "sweep.json").read_text())["arms"]
    for arm, entry in choice.items():
        lines = [
            json.loads((out / f"sweep/{arm}/lr-{lr}/seed5/metrics.jsonl").read_text().splitlines()[-1])
            for lr in ("0.001", "0.01")
        ]
        scores = [line["eval/success"] for line in lines]
        assert [point["score"] for point in entry["scores"]] == scores
        assert entry["chosen"]["train.lr"] == (0.001 if scores[0] >= scores[1] else 0.01)
        config = yaml.safe_load((out / f"runs/{arm}/seed0/config.yaml").read_text())
        assert config["train"]["lr"] == entry["chosen"]["train.lr"]
        assert config["train"]["init"] == "out/warm/seed0/warmup/model"
    data = json.loads((out / "comparison.json").read_text())
    (block,) = data["evaluations"]
    for arm in block["arms"][:2]:
        for seed in (0, 1):
            result = json.loads((out / f"runs/{arm['name']}/seed{seed}/eval/last.json").read_text())
            assert arm["success"]["by_seed"][str(seed)] == result["success"]
        assert arm["env_steps"]["low"] >= 20
    manifest = json.loads((out / "study.json").read_text())
    assert block["digest"] in manifest["panels"]
    assert manifest["versions"]["repro-rl"]
    assert manifest["jobs"]["run-repro-seed1"]["status"] == "finished"
    assert manifest["jobs"]["run-broken-seed1"]["status"] == "failed"
    command = manifest["jobs"]["run-repro-seed1"]["commands"][0]
    assert command.startswith("repro-rl train -c small.yaml --method repro --init '{out}/warm/seed1/")
    for kind in ("md", "html", "svg", "png"):
        assert (out / f"comparison.{kind}").stat().st_size > 500

    # Repeated without the arm that cannot run: nothing runs again, the pages are the same.
    logs = {path: path.read_bytes() for path in (out / "jobs").glob("*.log")}
    Path("study.yaml").write_text(yaml.safe_dump(study))
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out")
    assert code == 0, text
    assert "started" not in text
    assert {path: path.read_bytes() for path in (out / "jobs").glob("*.log")} == logs
    again = json.loads((out / "comparison.json").read_text())["evaluations"][0]
    assert [arm["success"] for arm in again["arms"]] == [arm["success"] for arm in block["arms"][:2]]

    # The folder holds this study, and another one is refused.
    code, text = cli(capsys, monkeypatch, "study.yaml", "-o", "out", "train.group_size=4")
    assert code == 2
    assert "out holds another study" in text
    # Without arguments it is continued; moved, its finished runs are still known.
    out.rename("moved")
    code, text = cli(capsys, monkeypatch, "-o", "moved", "--only", "final")
    assert code == 0, text
    assert "started" not in text
    code, text = cli(capsys, monkeypatch, "-o", "moved", "--dry-run")
    assert (
        "# run-gigpo-seed1 (finished)\nOMP_NUM_THREADS=1 repro-rl train -c small.yaml --method gigpo" in text
    )


def quick(name: str, out: Path, *commands: tuple[str, ...], after: tuple[str, ...] = ()) -> Job:
    return Job(name, "final", "arm", 0, out / name, commands, after)


HELP, WRONG = ("--help",), ("play", "nowhere")


@pytest.mark.usefixtures("forked")
def test_what_follows_a_failure_is_skipped_and_the_rest_runs(tmp_path):
    jobs = [
        quick("bad", tmp_path, HELP, WRONG, HELP),
        quick("child", tmp_path, HELP, after=("bad",)),
        quick("grandchild", tmp_path, HELP, after=("child",)),
        quick("other", tmp_path, HELP, HELP),
    ]
    seen: list[tuple[str, str]] = []
    outcome = runner.run_jobs(
        jobs, tmp_path, parallel=2, on_event=lambda kind, job, _: seen.append((kind, job.name))
    )
    assert outcome.finished == ["other"]
    assert list(outcome.failed) == ["bad"]
    assert "exit status 2: repro-rl play nowhere" in outcome.failed["bad"]
    assert "Unknown environment 'nowhere'" in outcome.failed["bad"]
    assert outcome.skipped == {"child": "bad", "grandchild": "child"}
    assert ("skipped", "grandchild") in seen
    assert (
        runner.log_file(tmp_path, jobs[0]).read_text().count("$ repro-rl") == 2
    )  # nothing after the failure
    # Repeated: the failed one is tried again, the finished one is kept.
    outcome = runner.run_jobs(jobs, tmp_path)
    assert outcome.kept == ["other"]
    assert runner.read_record(tmp_path, jobs[0])["attempts"] == 2
    # Other commands are another job.
    changed = quick("other", tmp_path, HELP)
    assert runner.run_jobs([changed], tmp_path).finished == ["other"]


@pytest.mark.usefixtures("forked")
def test_an_interruption_ends_the_processes_and_keeps_what_is_finished(tmp_path, monkeypatch):
    jobs = [quick(name, tmp_path, HELP) for name in "abc"]
    pids: list[int] = []

    def stop(running: Sequence[runner.Running]) -> None:
        pids.extend(entry.process.pid for entry in running if entry.process is not None)
        if runner.is_finished(tmp_path, jobs[0]) and running:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run_jobs(jobs, tmp_path, on_tick=stop)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    outcome = runner.run_jobs(jobs, tmp_path)
    assert outcome.kept[0] == "a"
    assert outcome.kept + outcome.finished == ["a", "b", "c"]


def test_a_real_process_writes_its_log_and_a_folder_has_one_owner(tmp_path):
    with runner.locked(tmp_path) as lock:
        outcome = runner.run_jobs([quick("a", tmp_path, HELP)], tmp_path, lock=lock)
        assert outcome.finished == ["a"]
        assert "repro-rl" in runner.log_file(tmp_path, quick("a", tmp_path)).read_text()
        script = "import sys; from pathlib import Path; from repro_rl.study.runner import locked\n"
        script += "with locked(Path(sys.argv[1])): pass"
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert other.returncode == 1
        assert "PreflightError: Another comparison" in other.stderr
    with runner.locked(tmp_path):
        pass


def test_progress_is_read_from_the_last_whole_line(tmp_path):
    job = Job("a", "final", "repro", 0, tmp_path, (), (), 1000, 10)
    assert runner.job_progress(job)[0] == 0.0
    (tmp_path / "metrics.jsonl").write_text(
        '{"iteration": 3, "env_steps": 450, "rollout/success": 0.25}\n{"iteration": 4, "env'
    )
    assert runner.job_progress(job) == (0.45, "iteration 3, 0k steps, success 0.250")


# Tables -------------------------------------------------------------------------------------------


def result(
    out: Path, arm: str, seed: int, won: Sequence[int], *, scores: Sequence[float] | None = None, **more: Any
) -> None:
    """An evaluated run: ``won`` per task."""
    folder = out / "runs" / arm / f"seed{seed}"
    values = list(scores or map(float, won))
    write_records(
        folder / "trajectories" / "eval-last.jsonl.gz",
        [
            {"task_id": f"t{n}", "won": bool(w), "score": s}
            for n, (w, s) in enumerate(zip(won, values, strict=True))
        ],
    )
    data = {
        **{"success": sum(won) / len(won), "score": sum(values) / len(values), "digest": "d1"},
        **{"panel": "p@d1", "tasks": len(won), "rollouts_per_task": 1, "temperature": 0.4, "seed": 1},
    }
    write_json(folder / "eval" / "last.json", data | more)


def curve(out: Path, arm: str, seed: int, points: Sequence[tuple[int, float, float]]) -> None:
    rows = [
        {"iteration": n + 1, "env_steps": steps, "seconds": seconds, "eval/success": success}
        for n, (steps, seconds, success) in enumerate(points)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_text(out / "runs" / arm / f"seed{seed}" / "metrics.jsonl", text)


def test_tables_by_hand(tmp_path):
    study = load_study(None, methods=["repro", "gigpo", "warmup-only"], seeds=[0, 1, 2])
    # Success of 4 tasks: repro .75 .5 1, gigpo .5 .5 .25; differences .25 0 .75, mean 1/3.
    for seed, (mine, theirs) in enumerate(
        [((1, 1, 1, 0), (1, 1, 0, 0)), ((1, 1, 0, 0), (1, 0, 1, 0)), ((1, 1, 1, 1), (0, 1, 0, 0))]
    ):
        result(tmp_path, "repro", seed, mine, by_type={"<b>pick|up</b>": {"success": mine[0], "episodes": 1}})
        result(tmp_path, "gigpo", seed, theirs)
        curve(tmp_path, "repro", seed, [(100, 60.0, 0.25), (200, 120.0, 0.5 + seed / 10)])
    result(tmp_path, "warmup-only", 0, (0, 0, 0, 0))
    data = compare(study, tmp_path)
    (block,) = data["evaluations"]
    assert block["metrics"] == ["success"]  # the score says nothing more
    repro, gigpo, warm = block["arms"]
    assert repro["success"]["mean"] == pytest.approx(0.75)
    assert (repro["success"]["best"], repro["success"]["worst"]) == (1.0, 0.5)
    # t(2) = 4.3027, standard error .25 / sqrt(3)
    assert repro["success"]["t"] == pytest.approx([0.75 - 0.6210, 0.75 + 0.6210], abs=1e-3)
    assert repro["by_type"]["<b>pick|up</b>"]["mean"] == 1.0
    assert repro["seconds"]["mean"] == 120.0
    assert gigpo["env_steps"] is None
    assert warm["missing"] == [1, 2]
    pair, last = block["differences"]
    assert (pair["reference"], pair["other"]) == ("repro", "gigpo")
    assert pair["by_seed"] == {"0": 0.25, "1": 0.0, "2": 0.75}
    assert pair["p"] == 0.5  # sums of signs reach 1 in 4 of 8 patterns, 0 having no sign
    assert pair["p_holm"] == 0.5  # alone in its family: the warm start is no trained arm
    assert pair["p_smallest"] == 0.25
    assert pair["tasks"] == 4
    assert pair["crossed"][0] <= pair["mean"] <= pair["crossed"][1]
    assert (last["other"], last["seeds"], last["t"], last["p"]) == ("warmup-only", [0], None, None)
    assert any("warmup-only: no result for seed 1, 2" in note for note in block["notes"])

    text = as_markdown(data)
    assert "| repro − gigpo | 3 | +0.333 |" in text
    assert "| warmup-only (not trained) | 1 | 0.000 | – | – | 0.000 | 0.000 | 0.000 | 0.000 – – |" in text
    assert "\\<b\\>pick\\|up\\</b\\>" in text
    page = as_html(data)
    assert "&lt;b&gt;pick|up&lt;/b&gt; (1)" in page
    assert "<b>pick" not in page
    assert "<script" not in page
    assert {path.suffix for path in write_comparison(data, tmp_path)} == {
        ".json",
        ".md",
        ".html",
        ".svg",
        ".png",
    }
    json.loads((tmp_path / "comparison.json").read_text())


def test_a_graded_score_is_a_second_metric(tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0, 1])
    for seed in (0, 1):
        result(tmp_path, "repro", seed, (1, 0), scores=(1.0, 0.5))
        result(tmp_path, "gigpo", seed, (1, 0), scores=(1.0, 0.1))
    (block,) = compare(study, tmp_path)["evaluations"]
    assert block["metrics"] == ["success", "score"]
    pair = next(p for p in block["differences"] if p["metric"] == "score")
    assert pair["mean"] == pytest.approx(0.2)
    # Without spread over seeds the tasks are all that varies: 0 or .4 for each of two.
    assert pair["crossed"] == pytest.approx([0.0, 0.4])
    assert "### Score on the held-out panel" in as_markdown(compare(study, tmp_path))


def test_runs_on_different_tasks_are_not_compared(tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0])
    with pytest.raises(DataError, match="No evaluated run"):
        compare(study, tmp_path)
    result(tmp_path, "repro", 0, (1, 0))
    result(tmp_path, "gigpo", 0, (1, 0), digest="d2")
    with pytest.raises(DataError, match=r"digest 'd1'.*'d2'"):
        compare(study, tmp_path)


def test_the_sweep_waits_for_the_whole_grid_and_then_stays(tmp_path):
    sweep = {"seeds": [9], "knobs": {"train.lr": [0.1, 0.2]}, "last": 2}
    arms: list[Any] = ["repro", {"name": "repro-no-shaping", "tuned_as": "repro"}]
    study = load_study(None, methods=arms, seeds=[0], sweep=sweep)
    jobs = [job for job in sweep_jobs(study, tmp_path) if job.stage == "sweep"]
    assert [job.name for job in jobs] == ["sweep-repro-lr-0.1-seed9", "sweep-repro-lr-0.2-seed9"]

    def finish(job: Job, successes: Sequence[float]) -> None:
        rows = [
            {"iteration": n, "env_steps": n, "seconds": n, "eval/success": s}
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
