"""The figures of each ``openenv.yaml`` are what its command measures. Needs no openenv."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

import repro_rl
from repro_rl.errors import MissingDependencyError, TaskError
from repro_rl.integrations.openenv.__main__ import main
from repro_rl.integrations.openenv.figures import RewardFigures, measure
from repro_rl.integrations.session import open_session

PACKAGES = Path(__file__).parents[3] / "environments" / "openenv"
ENVIRONMENTS = ("sokoban", "alfworld", "webshop")


def declared(name: str) -> dict:
    return yaml.safe_load((PACKAGES / name / "openenv.yaml").read_text())["validation"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_declared_figures_are_measured_again(name: str) -> None:
    figures, reward = measure(name), declared(name)["reward"]
    assert figures.oracle == 1.0
    assert figures.idle == 0.0
    assert (figures.oracle_tolerance, figures.floor_margin) == (
        reward["oracle_tolerance"],
        reward["floor_margin"],
    )


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_declared_task_counts_and_the_plan_are_those_of_the_panels(name: str) -> None:
    session = open_session(name)
    counts = {split: len(session.env.panel(split)) for split in session.splits()}
    assert declared(name)["capabilities"]["declared_task_count"] == counts
    plan = json.loads((PACKAGES / name / "validation" / "runtime.json").read_text())
    result = session.reset(**plan["reset"]["options"])
    for action in plan["actions"]:
        assert session.env.expert() == action["command"]
        result = session.step(action["command"])
    assert result.won


def test_tolerances_are_rounded_so_that_the_measured_rewards_keep_them() -> None:
    figures = RewardFigures("p", oracle=2 / 3, random=0.12345, idle=0.2)
    assert figures.oracle_tolerance == 0.3334  # 1/3 upwards: 2/3 >= 1 - .3334
    assert figures.floor_margin == 0.8
    assert RewardFigures("p", oracle=1.0, random=1 / 3, idle=0.0).floor_margin == 0.6666


def test_more_tasks_than_there_are_is_an_error() -> None:
    with pytest.raises(TaskError, match="500 tasks, 501 were asked for"):
        measure("sokoban", tasks=501)


def test_the_command_prints_lines_for_the_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", "sokoban", "boxes=2", "max_steps=30", "solution=[1, 30]", "--tasks", "4"]) == 0
    lines = yaml.safe_load(capsys.readouterr().out)
    assert set(lines) == {"oracle_tolerance", "floor_margin"}
    assert main(["figures", "sokobam"]) == 1
    assert "did you mean 'sokoban'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["figures", "sokoban", "boxes"])
    assert "'boxes' is not of the form setting=value" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("openenv") is not None, reason="openenv is installed")
def test_without_openenv_the_extra_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from repro_rl.integrations import openenv

    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[openenv\]'"):
        _ = openenv.create_app
    with pytest.raises(AttributeError):
        _ = openenv.create_apps
    assert main(["serve", "sokoban"]) == 1
    assert "pip install '.[openenv]'" in capsys.readouterr().err


def test_the_container_files_are_complete() -> None:
    for name in ENVIRONMENTS:
        folder = PACKAGES / name
        assert f'create_app("{name}")' in (folder / "server" / "app.py").read_text()
        assert f"figures {name}" in (folder / "solution" / "solve.sh").read_text()
        assert "openenv==0.10.*" in (folder / "Dockerfile").read_text()
        assert declared(name)["execution"]["dockerfile"] == "Dockerfile"
    assert (
        repro_rl.__version__ == yaml.safe_load((PACKAGES / "sokoban" / "openenv.yaml").read_text())["version"]
    )
