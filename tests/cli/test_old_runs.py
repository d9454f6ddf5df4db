"""Commands on a run whose settings no training would take any more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from repro_rl.config.trust import signed_config
from repro_rl.report.view import make_server
from repro_rl.study.definition import load_study
from repro_rl.study.folder import write_study
from support.command import run_command
from support.small import WarmStart
from support.studies import write_result

ONE = "train.kl.form is 'k1'"


@pytest.fixture
def old(warm: WarmStart, tmp_path: Path) -> Path:
    """The run of a finished warm start, with a KL that is refused since."""
    run = tmp_path / "run"
    shutil.copytree(warm.run, run)
    data = yaml.safe_load((run / "config.yaml").read_text())
    data["train"]["kl"] = {"form": "k1", "coef": 0.1}
    (run / "config.yaml").write_text(signed_config(yaml.safe_dump(data)))
    return run


def test_it_is_evaluated_watched_and_reported_and_not_trained(
    old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ("eval", old, "eval.tasks=2"),
        ("play", "sokoban", "--agent", old),
        ("pilot", "--model", old, "--conditions", "base", "-o", tmp_path / "pilot", "eval.tasks=2"),
    ):
        with pytest.warns(UserWarning, match="A training with this would be refused now"):
            code, text = run_command(capsys, monkeypatch, *command)
        assert code == 0, text
    assert json.loads((old / "eval" / "last.json").read_text())["episodes"] == 2
    code, text = run_command(capsys, monkeypatch, "report", old)
    assert code == 0, text
    make_server([old], 0).server_close()
    for command in (
        ("train", "-c", old / "config.yaml", "--init", old, "-o", old.with_name("on")),
        ("warmup", "-c", old / "config.yaml", "--demos", tmp_path, "-o", old),
    ):
        code, text = run_command(capsys, monkeypatch, *command)
        assert code == 2
        assert ONE in " ".join(text.split())


def test_the_tables_of_an_old_study_are_made_again_and_nothing_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    write_study(out, load_study(None, methods=["grpo", "gigpo"], seeds=[0]), [], parallel=1)
    content = json.loads((out / "study.json").read_text())
    content["study"]["set"] = ["train.kl.form=k1", "train.kl.coef=0.1"]
    (out / "study.json").write_text(json.dumps(content))
    for arm, won in (("grpo", (0, 1)), ("gigpo", (1, 1))):
        write_result(out, arm, 0, won)
    for command in (("compare", "-o", out, "--only", "table"), ("report", out)):
        code, text = run_command(capsys, monkeypatch, *command)
        assert code == 0, text
        assert "Written: " in text
    code, text = run_command(capsys, monkeypatch, "compare", "-o", out)
    assert code == 2
    assert "Arm 'grpo'" in text
    assert ONE in " ".join(text.split())
