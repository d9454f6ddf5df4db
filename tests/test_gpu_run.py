"""The run on a GPU, rehearsed on the CPU: all stages, cut off in the middle, failing, packed and unpacked."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from repro_rl.config import load_config

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "gpu_run"
STAGES = ["card", "correctness", "speed-toy", "warmup", "train-repro", "train-gigpo"]


@pytest.fixture
def modules(monkeypatch):
    """The benchmark's modules can be imported by name, as when it runs."""
    monkeypatch.syspath_prepend(str(FOLDER))


def command(folder: Path, *more: str) -> list[str]:
    paths = ["--out", str(folder / "out"), "--work", str(folder / "work"), "--minutes", "30"]
    return [sys.executable, str(FOLDER), "--toy", *paths, *more]


def journal(folder: Path) -> dict:
    return json.loads((folder / "out" / "gpu_run.json").read_text())


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}


@pytest.mark.slow
def test_cut_off_in_the_middle_it_goes_on(tmp_path):
    """Killed after an iteration, the file is whole; a repeat does what is left, and nothing twice."""
    process = subprocess.Popen(command(tmp_path), env=environment(), start_new_session=True)
    try:
        while process.poll() is None:
            stages = journal(tmp_path)["stages"] if (tmp_path / "out" / "gpu_run.json").exists() else {}
            if stages.get("train-repro", {}).get("rows", {}).get("iterations"):
                break
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    cut = journal(tmp_path)
    assert [cut["stages"][name]["status"] for name in STAGES[:4]] == ["done"] * 4
    assert cut["stages"]["train-repro"]["status"] == "running"
    done = subprocess.run(
        command(tmp_path), env=environment(), capture_output=True, text=True, check=True, timeout=600
    )
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == STAGES
    assert done.stdout.count("done before") == 4
    after = journal(tmp_path)
    assert {name: after["stages"][name]["status"] for name in STAGES} == dict.fromkeys(STAGES, "done")
    for name in STAGES[:4]:
        assert after["stages"][name] == cut["stages"][name]
    for name in STAGES[4:]:
        rows = after["stages"][name]["rows"]["iterations"]
        assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5]
        assert all(row["time/rollout"] > 0 and row["update/skipped"] == 0 for row in rows)
        assert 0 <= after["stages"][name]["results"]["validation"]["success"] <= 1
    assert after["stages"]["train-repro"]["rows"]["iterations"][0]["reflect/tokens"] > 0
    check_figures(after)


def check_figures(content: dict) -> None:
    """What the stages promise is there, and holds on a CPU."""
    results = {name: content["stages"][name]["results"] for name in STAGES}
    assert content["card"] == {"name": "CPU", "memory_bytes": None}
    assert content["versions"]["torch"]
    assert min(results["card"].values()) > 0
    exact = results["correctness"]
    for kind, limit in (("float32", 1e-5), ("bfloat16", 0.05), ("float32 under autocast", 0.05)):
        compared = exact[f"sampler and trainer, {kind}"]
        assert compared["tokens"] > 300
        assert compared["max_abs"] <= limit
        assert compared["static_cache"] is True
        assert exact[f"decoders, {kind}"]["steps from Python"]["equal_rows"] == 16
    assert exact["decoders, float32"]["dynamic cache"] == pytest.approx(
        {"rows": 16, "equal_rows": 16, "max_abs": 0}, abs=1e-5
    )
    assert exact["adapter"]["max_abs_off_to_base"] == 0
    assert exact["adapter"]["max_abs_on_to_base"] > 0.01
    assert exact["adapter"]["sampler and trainer, on"]["max_abs"] <= 1e-5
    assert exact["adapter"]["sampler and trainer, off, max_abs"] <= 1e-5
    speed = results["speed-toy"]
    for name in ("window", "window, cuDNN attention"):
        assert 4 <= speed[name]["sampled_tokens"] <= 4 * 6
        assert speed[name]["sampled_tokens_per_s"] == pytest.approx(
            speed[name]["sampled_tokens"] / speed[name]["seconds"], rel=1e-4
        )
    assert speed["window, transformers generate"]["sampled_tokens_per_s"] > 0
    assert speed["window, dynamic cache"]["graphs"] == 0
    assert len(speed["chat"]["turn_seconds"]) == 2
    assert 2 * 4 <= speed["chat"]["sampled_tokens"] <= 2 * 4 * 6
    assert speed["update"]["tokens"] == 4 * 24
    assert speed["update"]["planned_bytes"] > 0


def fails(job, journal, stage, deadline):
    journal.result(stage, "before", 1.0)
    raise ValueError("no such thing\nas a card")


def dies(job, journal, stage, deadline):
    journal.result(stage, "before", float("nan"))
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(job, journal, stage, deadline):
    time.sleep(60)


def works(job, journal, stage, deadline):
    journal.result(stage, "seconds", deadline.left())


def hurries(job, journal, stage, deadline):
    from journal import OutOfTimeError

    journal.result(stage, "update", "skipped")
    raise OutOfTimeError("no time was left for: update")


def test_a_stage_that_left_something_out_is_not_done(modules, tmp_path):
    from job import toy_job
    from stages import Stage, run_stages

    listed = [Stage("hurries", hurries, 0.5), Stage("waits", works, 0.5, needs=("hurries",))]
    content = run_stages(toy_job(), listed, tmp_path, minutes=1.0).content["stages"]
    assert content["hurries"]["status"] == "cut off"
    assert content["hurries"]["error"] == "no time was left for: update"
    assert content["hurries"]["results"] == {"update": "skipped"}
    assert content["waits"]["status"] == "failed"


def test_what_speed_has_no_time_for_is_named(modules, tmp_path, monkeypatch):
    """The update comes before what ours is compared with; nothing is left out in silence."""
    import speed
    from job import TOY_SHAPE, toy_job
    from journal import Deadline, Journal, OutOfTimeError

    order = []
    for name in ("window", "chat", "update", "generate", "rollout", "window_with_cudnn"):
        monkeypatch.setattr(speed, name, lambda *_, name=name: {"calls": order.append(name)})
    journal = Journal(tmp_path)
    journal.begin("speed", 60.0)
    speed.measure(TOY_SHAPE, toy_job(), journal, "speed", Deadline(60))
    assert order == ["window", "chat", "update", "generate", "rollout", "window_with_cudnn"]
    with pytest.raises(OutOfTimeError, match="no time was left for: window; chat; update; window, trans"):
        speed.measure(TOY_SHAPE, toy_job(), journal, "speed", Deadline(-1))
    assert set(journal.content["stages"]["speed"]["results"].values()) == {"skipped"}


def test_a_random_model_samples_from_its_whole_vocabulary(modules):
    import torch
    from job import TOY_SHAPE
    from random_model import FIRST_WORD, WORDS, keys, prompts, random_policy

    from repro_rl.policy import SamplingSettings

    policy = random_policy(TOY_SHAPE, "cpu", torch.float32)
    answers = policy.generate_ids(prompts(4, 8, "whole"), keys(4), SamplingSettings(40, temperature=5))
    drawn = {token for answer in answers for token in answer.token_ids}
    assert max(drawn) >= FIRST_WORD + WORDS
    assert policy.codec.answer_tokens.unused == ()


@pytest.mark.parametrize(("seconds", "result"), [(19, "no time"), (60, {"success": 0.5, "seconds": 0})])
def test_a_validation_begins_only_with_time_for_it(modules, tmp_path, seconds, result):
    from journal import Deadline, Journal
    from training import validate

    journal = Journal(tmp_path)
    journal.begin("warmup", seconds)
    validate(journal, "warmup", Deadline(seconds), lambda: 0.5)
    written = journal.content["stages"]["warmup"]["results"]["validation"]
    assert written == pytest.approx(result, abs=0.1) if isinstance(result, dict) else written == result


def test_a_stage_that_fails_dies_or_hangs_takes_no_other_with_it(modules, tmp_path, monkeypatch, capsys):
    import stages
    from job import toy_job
    from stages import Stage

    monkeypatch.setattr(stages, "GRACE", 0.2)
    listed = [
        Stage("fails", fails, 0.2),
        Stage("dies", dies, 0.2),
        Stage("hangs", hangs, 0.01),
        Stage("waits", works, 0.2, needs=("works", "hangs")),
        Stage("works", works, 0.3),
    ]
    content = stages.run_stages(toy_job(), listed, tmp_path, minutes=1.0).content["stages"]
    found = {name: (entry["status"], entry.get("error", "")) for name, entry in content.items()}
    assert found["fails"][0] == "failed"
    assert "ValueError: no such thing" in found["fails"][1]
    assert "in fails" in found["fails"][1]  # the whole trace
    assert found["dies"] == ("cut off", "ended from outside with exit code -9: over its budget, or killed")
    assert content["dies"]["results"] == {"before": "nan"}  # strict JSON has no NaN
    assert found["waits"] == ("failed", "needs works, hangs")
    assert found["works"] == ("done", "")
    assert content["fails"]["results"] == {"before": 1.0}
    assert "as a card" in capsys.readouterr().out
    json.loads((tmp_path / "gpu_run.json").read_text())
    # A repeat runs again what did not end well, and nothing else.
    written = content["works"]
    again = stages.run_stages(toy_job(), [Stage("fails", works, 0.5), listed[4]], tmp_path, minutes=1.0)
    assert again.status("fails") == "done"
    assert again.content["stages"]["works"] == written


def test_unused_time_goes_to_later_stages(modules, tmp_path):
    from job import toy_job
    from stages import Stage, run_stages

    listed = [Stage("first", works, 0.5), Stage("second", works, 0.5)]
    content = run_stages(toy_job(), listed, tmp_path, minutes=2.0).content["stages"]
    assert 50 < content["first"]["budget_seconds"] <= 60
    assert content["second"]["budget_seconds"] > 100


def test_results_of_another_job_are_left_alone(modules, tmp_path, monkeypatch, capsys):
    from journal import Journal

    Journal(tmp_path / "out").note(job={"toy": True})
    written = (tmp_path / "out" / "gpu_run.json").read_bytes()
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    for given, message in (
        (["--model", "m.gguf", *folders], "is of another job; give another --out"),
        (folders, "--model is needed, or --toy"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_run", *given])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(FOLDER), run_name="__main__")
        assert message in f"{stopped.value.code} {capsys.readouterr().err}"
    assert (tmp_path / "out" / "gpu_run.json").read_bytes() == written


@pytest.mark.parametrize("method", ["repro", "gigpo"])
def test_the_settings_of_the_real_run_are_valid(modules, method):
    from job import full_job

    job = full_job("m.gguf")
    config = load_config(job.recipe, [*job.settings, f"method={method}"])
    assert config.policy.model == "m.gguf"
    assert config.policy.static_cache == "auto"
    assert (config.policy.device, config.prompt.context, config.method.reflect) == (
        "cuda",
        "chat",
        method == "repro",
    )


def test_packed_in_parts_and_unpacked(modules, tmp_path):
    """Two parts within the limit; broken ones are refused; the package arrives whole."""
    import pack

    model = tmp_path / "model.gguf"
    model.write_bytes(os.urandom(3 << 20))
    demos = tmp_path / "demos"
    demos.mkdir()
    (demos / "expert.jsonl.gz").write_bytes(b"demo")
    limit = 3 << 20
    folders = pack.pack(model, demos, tmp_path / "packed", limit, wheels=False)
    assert len(folders) == 2
    assert all(pack.size(folder) <= limit for folder in folders)
    with pytest.raises(ValueError, match="is there already"):
        pack.pack(model, None, tmp_path / "packed", limit, wheels=False)
    with pytest.raises(ValueError, match="raise --limit above that"):
        pack.pack(model, None, tmp_path / "other", 1 << 16, wheels=False)

    def unpack(folder: Path) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, str(folder / "unpack.py"), str(tmp_path / "target")]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    second = unpack(folders[1])  # in any order
    assert second.stdout == "Part 2 of 2 is here; still to come: [1]\n"
    last = unpack(folders[0])
    assert last.stdout.startswith("Complete. Run: PYTHONPATH=")
    assert "--demos" in last.stdout
    target = tmp_path / "target"
    assert (target / "model.gguf").read_bytes() == model.read_bytes()
    assert (target / "demos" / "expert.jsonl.gz").read_bytes() == b"demo"
    for name in ("src/repro_rl/policy/decoding/static/decoder.py", "benchmarks/gpu_run/__main__.py"):
        assert (target / "package" / name).read_bytes() == (ROOT / name).read_bytes()
    (folders[1] / "files" / "weights.02").write_bytes(b"broken")
    broken = unpack(folders[1])
    assert broken.returncode == 1
    assert "weights.02 is broken; carry the part again" in broken.stderr


def test_the_wheels_are_what_the_package_depends_on(modules):
    """Every dependency is either a wheel to carry or among the packages that the machine has."""
    import re
    import tomllib

    listed = (FOLDER / "wheels.txt").read_text()
    text = " ".join(line.lstrip("# ") for line in listed.splitlines() if line.startswith("#"))
    there = set(re.findall(r"[a-z0-9][a-z0-9-]*", text.lower())) | {"numpy", "pyyaml"}
    carried = {line.partition("==")[0] for line in listed.splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[^a-z0-9-]", line.lower())[0] for line in project["dependencies"]}
    assert needed - carried - there == set()
    assert not carried & there
