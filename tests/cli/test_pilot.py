"""The command ``pilot``, whole and in miniature: what it plays, shows, repeats and refuses."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from repro_rl.demos import save_demos
from repro_rl.demos.incontext import WHOLE
from repro_rl.report.pilot import headline, tables
from repro_rl.study.pilot import CONDITIONS
from repro_rl.study.unfinished import UnfinishedEvaluation
from repro_rl.types import Trajectory
from support.api_server import Server
from support.command import run_command
from support.episodes import same_episodes
from support.experts import expert

MINI = [
    "env.settings.max_steps=6",
    "env.settings.solution=[3, 5]",
    "policy.tiny={hidden: 32, heads: 2, kv_heads: 2, ffn: 64, positions: 512}",
    "demos.expert=6",
    "demos.winning=4",
    "demos.failing=4",
    "warmup.updates=4",
    "warmup.forward_from=0",
    "warmup.forward_batch=10",
    "warmup.reflect_batch=4",
    "eval.tasks=6",
]


def pilot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit status and everything printed, with white space collapsed."""
    monkeypatch.setenv("COLUMNS", "200")
    code, out = run_command(capsys, monkeypatch, "pilot", *arguments)
    return code, " ".join(out.split())


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / "trajectories" / f"eval-{name}.jsonl.gz", "rt") as handle:
        return [json.loads(line) for line in handle]


def test_the_whole_pilot_in_miniature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pilot"
    with monkeypatch.context() as patch:  # interrupted in the middle of its first condition
        add, added = UnfinishedEvaluation.add, []

        def interrupted(self: UnfinishedEvaluation, trajectory: Trajectory) -> None:
            added.append(trajectory.task_id)
            add(self, trajectory)
            if len(added) == 4:
                raise KeyboardInterrupt

        patch.setattr(UnfinishedEvaluation, "add", interrupted)
        code, printed = pilot(capsys, patch, "-o", str(out), "--seeds", "0,1", *MINI)
        assert code == 130
    played: list[Trajectory] = []
    monkeypatch.setattr(
        UnfinishedEvaluation, "add", lambda self, episode: (played.append(episode), add(self, episode))
    )
    code, printed = pilot(capsys, monkeypatch, "-o", str(out), "--seeds", "0,1", *MINI)
    assert code == 0, printed
    assert f"Continuing base in {out / 'seed0'} after 4 episodes." in printed
    assert f"Continuing {out / 'seed0' / 'warmup'} after update 4." in printed
    assert len(played) == 2 * 5 * 6 - 4  # seeds, conditions, tasks; the first four were not played again
    data = json.loads((out / "pilot.json").read_text())
    assert [row["name"] for row in data["conditions"]] == [item.name for item in CONDITIONS]
    assert all(row["seeds"] == [0, 1] for row in data["conditions"])
    assert data["panel"].startswith("sokoban/test[6]@")
    assert data["digest"]
    asked = {(pair["one"], pair["other"]) for pair in data["differences"]}
    assert {("retrospective", "meta"), ("retrospective", "random"), ("meta", "base")} <= asked
    first = {item.name: records(out / "seed0", item.name) for item in CONDITIONS}
    tasks = [row["task_id"] for row in first["base"]]
    for name, rows in first.items():
        assert [row["task_id"] for row in rows] == tasks  # one panel
        prompts = [step["prompt"] for row in rows for step in row["steps"]]
        assert all(p.endswith("progress" if name == "meta" else "act") for p in prompts)
        assert all(p.startswith("demo ") == (name in ("plain", "random", "retrospective")) for p in prompts)
        assert all(p.count("demo ") in (0, 2) for p in prompts)
        if name in ("random", "retrospective"):
            assert all(" p100 now " in p for p in prompts) == (name == "retrospective")
    shown = next(row for row in data["conditions"] if row["name"] == "random")["demonstrations"]
    assert set(shown) == {WHOLE}
    page = (out / "pilot.html").read_text()
    assert "<script" not in page
    assert "Retrospective against random progress" in page
    assert "demo at:" in page  # the prompts themselves
    assert "| retrospective − random |" in (out / "pilot.md").read_text()
    # repeated, nothing is played again; other settings are refused; a seed may be added, a condition left out
    before = {path: path.stat().st_mtime_ns for path in out.glob("seed*/eval/*.json")}
    code, printed = pilot(capsys, monkeypatch, "-o", str(out), "--seeds", "0,1", *MINI)
    assert code == 0
    assert printed.count("played before") == 10
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("seed*/eval/*.json")}
    code, printed = pilot(capsys, monkeypatch, "-o", str(out), *MINI, "eval.temperature=0")
    assert code == 2
    assert "eval.temperature: 0.4 there, 0.0 now" in printed
    # the warm start as a given model gives the same episodes as where it was trained: same seed, same demos
    given = ["--model", str(out / "seed0" / "warmup"), "--demos", str(out / "seed0" / "demos"), "-o"]
    code, printed = pilot(capsys, monkeypatch, *given, str(tmp_path / "given"), "eval.seed=1234")
    assert code == 0, printed
    for name, rows in first.items():
        assert same_episodes(records(tmp_path / "given" / "seed0", name), rows)
    # another model of the same name and settings does not continue it
    shutil.copytree(out / "seed0" / "warmup", tmp_path / "other" / "warmup")
    shutil.copytree(
        out / "seed1" / "warmup" / "model", tmp_path / "other" / "warmup" / "model", dirs_exist_ok=True
    )
    given[1] = str(tmp_path / "other" / "warmup")
    code, printed = pilot(capsys, monkeypatch, *given, str(tmp_path / "given"), "eval.seed=1234")
    assert code == 2
    assert "holds a pilot of warmup (model)" in printed


def test_conditions_that_a_tiny_model_was_not_taught_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pilot"
    mini = [*MINI, "warmup.updates=1"]
    code, printed = pilot(capsys, monkeypatch, "-o", str(out), "--conditions", "base,meta", *mini)
    assert code == 0, printed
    code, printed = pilot(
        capsys,
        monkeypatch,
        "--model",
        str(out / "seed0" / "warmup"),
        "-o",
        str(tmp_path / "b"),
        "eval.tasks=3",
    )
    assert code == 0, printed
    assert "random: not played: the model's warmup did not teach this prompt (demos-random)" in printed
    data = json.loads((tmp_path / "b" / "pilot.json").read_text())
    assert {row["name"] for row in data["conditions"] if row["seeds"]} == {"base", "meta"}
    assert any("did not teach" in cell for row in tables(data)[0].rows for cell in row)
    assert len(headline(data)) == 1


def test_what_an_api_model_lacks_is_said_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pilot"
    settings = ["-c", "sokoban-qwen3", "--model", "api:m", "-o", str(out), f"api.cache={tmp_path / 'cache'}"]
    code, printed = pilot(capsys, monkeypatch, *settings)
    assert (code, "api.base_url is ''" in printed) == (2, True), printed
    settings += ["api.base_url=http://localhost:1/v1", "prompt.style=compact"]
    code, printed = pilot(capsys, monkeypatch, *settings)
    assert (code, "cannot read the compact prompts" in printed) == (2, True), printed
    assert not out.exists()


def test_an_api_model_plays_all_conditions_in_full_style(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["-c", "sokoban-qwen3", "--model", "api:m", "-o", str(tmp_path / "pilot")]
    settings += [f"api.base_url={server.url}", f"api.cache={tmp_path / 'cache'}"]
    settings += ["env.settings.max_steps=5", "env.settings.solution=[3, 5]", "demos.expert=5", "eval.tasks=3"]
    code, printed = pilot(capsys, monkeypatch, *settings)
    assert code == 0, printed
    data = json.loads((tmp_path / "pilot" / "pilot.json").read_text())
    assert data["agent"] == "api:m"
    assert all(row["seeds"] == [0] for row in data["conditions"])
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    asked = {
        "meta": "Say how far the task will be done",
        "demonstrations": "2 examples: finished and successful attempts",
        "judged": "[Example 2, step 1] Progress: ",
    }
    counts = {name: sum(text in p for p in prompts) for name, text in asked.items()}
    assert 0 < counts["meta"] <= 15
    assert 0 < counts["judged"] < counts["demonstrations"]
    assert not any(asked["meta"] in p and asked["demonstrations"] in p for p in prompts)
    assert "sk-" not in (tmp_path / "pilot" / "pilot.json").read_text()
    calls = server.calls
    code, printed = pilot(capsys, monkeypatch, *settings)
    assert code == 0
    assert server.calls == calls
    assert printed.count("played before") == 5


def test_a_pilot_has_one_budget_and_each_condition_its_own_counts(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of two conditions; each call gives 10 + 5 tokens."""
    settings = ["-c", "sokoban-qwen3", "--model", "api:m", "-o", str(tmp_path / "pilot"), "--seeds", "0-1"]
    settings += ["--conditions", "base,meta", f"api.base_url={server.url}", "api.concurrency=1"]
    settings += [f"api.cache={tmp_path / 'cache'}", "demos.expert=5", "eval.tasks=2"]
    settings += ["env.settings.max_steps=5", "env.settings.solution=[3, 5]"]
    for _ in range(2):  # at most 2 conditions of 2 episodes of 5 steps are 20 calls a seed
        code, printed = pilot(capsys, monkeypatch, *settings, "api.budget.calls=22")
        assert (code, "The budget of 22 calls is used up (22 used)" in printed) == (2, True), printed
        assert server.calls == 22
    code, printed = pilot(capsys, monkeypatch, *settings)
    assert code == 0, printed
    assert f"{server.calls - 22} answers in {server.calls - 22} calls, 22 from before" in printed
    assert printed.count(" from before") == 1
    for seed in ("seed0", "seed1"):
        for name in ("base", "meta"):
            usage = json.loads((tmp_path / "pilot" / seed / "eval" / f"{name}.json").read_text())["api"]
            steps = sum(len(row["steps"]) for row in records(tmp_path / "pilot" / seed, name))
            assert usage["answers_new"] + usage["answers_found"] == steps
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10 * steps, 5 * steps)


def test_demonstrations_of_another_environment_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_demos(tmp_path / "demos", [expert("a", (1, 100))], [])
    (tmp_path / "demos" / "demos.json").write_text(
        json.dumps({"settings": {"env": {"name": "webshop", "settings": {}}}})
    )
    code, printed = pilot(
        capsys, monkeypatch, "--demos", str(tmp_path / "demos"), "-o", str(tmp_path / "p"), *MINI
    )
    assert code == 2
    assert "holds demonstrations of another environment:" in printed
    assert "env.name: 'webshop' there, 'sokoban' now" in printed
