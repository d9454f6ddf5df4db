"""Every script of examples/ runs, stays short, and does what it says; long ones at a small size."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from support.api_server import Server

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL_LOOP = [
    "env.settings={style: relative, train_rooms: 16, validation_rooms: 8, test_rooms: 16, solution: [2, 5], "
    "max_steps: 6}",
    "policy.tiny={hidden: 32, heads: 2, kv_heads: 2, ffn: 64, positions: 256}",
    "prompt.resolution=50",
    "demos={expert: 20, winning: 30, failing: 40}",
    "warmup={updates: 100, forward_from: 20, forward_batch: 32, reflect_batch: 32, lr: 0.01, lr_end: 1.0, "
    "target_success: 0.2, check_every: 40}",
    "train={iterations: 3, groups: 8, minibatches: 4, loss: {name: gspo}}",
    "eval={tasks: 16, validation_tasks: 8}",
    "seed=1",
]


def run(name: str, *arguments: str) -> str:
    return python(str(EXAMPLES / name), *arguments)


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_short_and_tested():
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert scripts == [
        "custom_credit_rule.py",
        "custom_environment.py",
        "environments_only.py",
        "evaluate_api_model.py",
        "gymnasium_vector.py",
        "openenv_client.py",  # tests/integrations/openenv
        "rl_loop.py",
        "skyrl_webshop.py",
        "trl_tools.py",  # run by make adapters-check
        "verifiers_eval.py",  # tests/integrations/verifiers
    ]
    for script in scripts:
        assert len((EXAMPLES / script).read_text().splitlines()) < 200, script


def test_the_environments_play_without_torch():
    out = run("environments_only.py")
    assert len(re.findall(r"^won$", out, re.MULTILINE)) == 3


def test_games_are_played_at_once_by_gymnasium():
    out = run("gymnasium_vector.py")
    assert out.startswith("-= Welcome to TextWorld, ALFRED! =-")
    assert "out of steps: [ True  True  True  True]" in out
    assert "In this room: " in out


def test_skyrl_gym_plays_an_episode():
    pytest.importorskip("skyrl_gym", reason="SkyRL-Gym is not installed: pip install '.[skyrl]'")
    assert re.search(r"\{'won': 1\.0, 'score': 1\.0, 'return': 10\.0", run("skyrl_webshop.py"))


def test_a_credit_rule_is_compared_with_gigpo():
    out = run("custom_credit_rule.py")
    assert len(re.findall(r"^gigpo ", out, re.MULTILINE)) == 2
    by_time = [line for line in out.splitlines() if line.startswith("by_time")]
    # Against the mean of two, the values of a step number are opposite, as far as both episodes reach.
    first, second = ([float(x) for x in re.findall(r"[+-]\d+\.\d+", line)] for line in by_time)
    assert first
    assert second
    assert any(first)
    assert all(abs(a + b) < 0.011 for a, b in zip(first, second, strict=False))


def test_a_model_behind_an_api_is_evaluated(tmp_path: Path):
    server = Server()  # answers sensibly, and judges the steps when asked to
    out = run("evaluate_api_model.py", server.url, "m", "--tasks", "3", "--out", str(tmp_path))
    assert re.search(r"sokoban/\S+@\w+: success [01]\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", out)
    assert "reflections read 1.00" in out
    assert len(server.bodies) == int(re.search(r"(\d+) calls", out)[1]) > 3
    assert (tmp_path / "trajectories" / "eval-api.jsonl.gz").exists()


@pytest.mark.slow
def test_an_environment_is_checked_and_trained_in():
    out = run("custom_environment.py", "--iterations", "1")
    assert "checks: all passed" in out
    assert re.search(r"held-out success 0\.\d\d → [01]\.\d\d on counter/test\[48\]@", out)


@pytest.mark.slow
def test_the_loop_reaches_what_the_demo_reaches(tmp_path: Path):
    """To the last digit: success and environment steps of every iteration, and held-out success.

    With GSPO, whose bounds are so narrow that a loop with another loss would not reach the same.
    """
    loop = run("rl_loop.py", "--seed", "1", *SMALL_LOOP)
    demo = python("-m", "repro_rl", "demo", "--out", str(tmp_path), *SMALL_LOOP)
    rows = [json.loads(line) for line in (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()]
    printed = re.findall(r"^iteration (\d): success (\S+), (\d+) environment steps$", loop, re.MULTILINE)
    assert printed == [
        (str(row["iteration"]), f"{row['rollout/success']:.3f}", str(row["env_steps"])) for row in rows
    ]
    assert rows[2]["rollout/success"] > rows[0]["rollout/success"]
    by_loop = re.search(r"eld-out success (0\.\d{3}) → (0\.\d{3})", loop)
    by_demo = re.search(r"Held-out success (0\.\d{3}) \(warm-start\) → .*, (0\.\d{3}) \(last\)", demo)
    assert by_loop.groups() == by_demo.groups() > ("0.0",)


@pytest.mark.parametrize(
    "setting",
    [
        "train.loss.aggregation=token-sum",
        "method.distill.coef=0.1",
        "method=gigpo",
        "train.dynamic_sampling=1",
    ],
)
def test_the_loop_refuses_what_it_lacks(setting, monkeypatch, capsys):
    loop = runpy.run_path(str(EXAMPLES / "rl_loop.py"))
    monkeypatch.setattr("sys.argv", ["rl_loop.py", *SMALL_LOOP, setting])
    with pytest.raises(SystemExit):
        loop["main"]()
    assert "only token-mean, no second scoring" in capsys.readouterr().err


NOTEBOOK = EXAMPLES / "quickstart.ipynb"


def shapes(text: str) -> list[int]:
    """Words a line; lines of the same shape after each other count once, as episodes differ in length."""
    return [count for count, _ in groupby(len(line.split()) for line in text.splitlines())]


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells as one program. Numbers may differ between processors, so their places are compared."""
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    assert len(cells) == 6
    program = "import matplotlib\nmatplotlib.use('Agg')\n"
    for cell in cells:
        source = "".join(cell["source"])
        program += f"print('<cell>')\n{source}\n"
    (tmp_path / "notebook.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    printed = python("notebook.py").split("<cell>\n")[1:]
    for cell, text in zip(cells, printed, strict=True):
        held = "".join(
            "".join(output["text"]) for output in cell["outputs"] if output.get("name") == "stdout"
        )
        assert shapes(held) == shapes(text)
    assert re.search(r"true progress 100 %\n$", printed[1])
    assert re.search(r"^\d+ of 32 reflections can be read", printed[3])
    assert (
        len(re.findall(r"^iteration \d: success [01]\.\d{3}, reflections read", printed[4], re.MULTILINE))
        == 3
    )
    assert "image/png" in cells[-1]["outputs"][-1]["data"]
