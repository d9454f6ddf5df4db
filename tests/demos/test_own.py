"""Episodes of a user's own: what the environment makes of them, and what is wrong with a file."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from repro_rl import make
from repro_rl.cli.stages import run_demos_stage
from repro_rl.config import DemosSection, load_config
from repro_rl.demos import collect_demos, load_demos
from repro_rl.demos.own import episodes_digests
from repro_rl.errors import ConfigError, DataError
from repro_rl.files import write_bytes
from repro_rl.rollout.record import write_trajectories
from repro_rl.types import Status

ROOMS: dict[str, Any] = {"train_rooms": 12, "validation_rooms": 2, "test_rooms": 2, "solution": (2, 6)}
NONE: dict[str, Any] = {"expert": 0, "winning": 0, "failing": 0}


@pytest.fixture(scope="module")
def env():
    return make("sokoban", **ROOMS)


@pytest.fixture(scope="module")
def solved(env) -> dict[str, Any]:
    """The expert's episode in the first room, as a file has it."""
    return solution(env, env.panel("train").ids[0])


def solution(env, task: str) -> dict[str, Any]:
    seen, _ = env.reset(options={"task": task})
    actions: list[str] = []
    observations: list[str] = []
    while (action := env.expert()) is not None:
        actions.append(action)
        observations.append(seen)
        seen = env.step(action)[0]
    return {"task": task, "actions": actions, "observations": observations, "won": True}


def written(folder: Path, *records: Any, name: str = "own.jsonl") -> str:
    text = "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)
    (folder / name).write_text(text)
    return str(folder / name)


def collected(env, *files: str, **settings: Any):
    section = DemosSection(**NONE | {"episodes": files} | settings)
    return collect_demos(env, env.panel("train").ids, section, seed=0)


def test_won_episodes_are_imitated_and_all_are_labelled(env, solved, tmp_path):
    count = len(solved["actions"])
    labels = [7] * count
    lost = {"task": solved["task"], "actions": ["fly", ""], "progress": [100, 3.0]}
    file = written(tmp_path, solved, "", {**solved, "progress": labels, "imitate": False}, lost)
    (expert,), (told, short) = collected(env, file)
    assert [step.action for step in expert.steps] == solved["actions"]
    assert [step.observation for step in expert.steps] == solved["observations"]
    assert expert.steps[-1].env_reward > 0
    oracle = [round(100 * step.truth) for step in expert.steps]
    assert list(expert.judged) == [step.online for step in expert.steps] == oracle
    assert expert.judged[-1] == 100
    assert (told.won, told.judged) == (True, (*labels[:-1], 100)), "the outcome corrects the end"
    assert (short.won, short.status, short.judged) == (False, Status.TRUNCATED, (99, 3))
    assert [step.valid for step in short.steps] == [False, False]
    assert [step.advice for step in short.steps] == [None, None], "it is not imitated"


@pytest.mark.parametrize("progress", [None, [0, *[50] * 9]])
def test_a_refused_action_of_an_imitated_episode_is_not_taught(env, solved, tmp_path, progress):
    record = {"task": solved["task"], "actions": ["fly", *solved["actions"]]}
    if progress is not None:
        record["progress"] = progress[: len(record["actions"])]
    (expert,), _ = collected(env, written(tmp_path, record))
    first, *others = expert.steps
    assert (first.mistake, first.advice.action, first.online, first.advice.online) == (True, "", 0, 0)
    assert [step.advice for step in others] == [None] * len(others)


def test_they_stand_behind_those_that_an_expert_plays_and_do_not_change_these(env, solved, tmp_path):
    plain = {"expert": 2, "winning": 1, "failing": 1, "agent": "planner", "mistakes": (0.0,), "wandering": 0}
    alone = collected(env, **plain)
    packed = tmp_path / "own.jsonl.gz"
    write_bytes(packed, gzip.compress(json.dumps(solved).encode()))
    experts, labelled = collected(env, written(tmp_path, solved), str(packed), **plain)
    assert [t.task_id for t in experts] == [*(t.task_id for t in alone[0]), solved["task"], solved["task"]]
    assert [t.judged for t in (*experts[:2], *labelled)] == [t.judged for t in (*alone[0], *alone[1])]


def changed(**fields: Any) -> Any:
    return lambda record: {**record, **fields}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: "{", "not JSON"),
        (lambda r: {"task": r["task"]}, "field actions: Field required"),
        (
            changed(action="up"),
            r"field action: is no field of an episode; did you mean 'actions'\? Known: actions, ",
        ),
        (changed(actions=[]), "field actions: is empty"),
        (changed(actions=["up", 3]), r"field actions\.1: .*valid string \(got 3\)"),
        (changed(task="r1"), r"field task: 'r1' is no task of demos\.split, .* ids look like "),
        (changed(progress=[1]), r"field progress: 1 values for \d+ actions; give one for each"),
        (
            lambda r: {**r, "progress": [0.5] * len(r["actions"])},
            r"field progress\.0: 0\.5; .* percent, 0 to 100",
        ),
        (
            lambda r: {**r, "progress": [0] * (len(r["actions"]) - 1) + [101]},
            r"progress\.\d+: 101; progress is",
        ),
        (changed(observations=["a"]), r"field observations: 1 values for \d+ actions"),
        (
            lambda r: {**r, "observations": [r["observations"][0], *["a" * 99] * (len(r["actions"]) - 1)]},
            r"field observations\.1: the environment shows '.*' here, not 'a{60}…'; it must have the env\.",
        ),
        (
            lambda r: {"task": r["task"], "actions": [*r["actions"], "up", "up"]},
            r"field actions\.\d+: the episode ends with the action before this one; leave out the last 2",
        ),
        (changed(won="yes"), r"field won: .*valid boolean"),
        (changed(won=False), "field won: is False, but played again the episode is won"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(env, solved, tmp_path, change, message):
    file = written(tmp_path, solved, change(solved))
    with pytest.raises(DataError, match=rf"own\.jsonl, record line 2.*{message}"):
        collected(env, file)


def test_an_empty_file_a_missing_one_and_a_held_out_task_are_refused(env, solved, tmp_path):
    with pytest.raises(DataError, match=r"empty\.jsonl: holds no episode; write one a line"):
        collected(env, written(tmp_path, name="empty.jsonl"))
    with pytest.raises(DataError, match=r"none\.jsonl: .*[Nn]o such file"):
        collected(env, str(tmp_path / "none.jsonl"))
    held_out = solution(env, env.panel("test").ids[0])
    with pytest.raises(DataError, match=r"is no task of demos\.split, and may be held out"):
        collected(env, written(tmp_path, held_out))


def test_an_environment_that_fails_is_named(env, solved, tmp_path, monkeypatch):
    def broken(action: str) -> Any:
        raise RuntimeError("the engine is gone")

    monkeypatch.setattr(env, "step", broken)
    with pytest.raises(DataError, match=r"line 1, field actions: played again, the episode fails: .*is gone"):
        collected(env, written(tmp_path, solved))


def test_the_command_makes_them_once_and_notices_another_file(env, solved, tmp_path):
    file = written(tmp_path, solved)
    settings = ["demos.expert=0", "demos.winning=0", "demos.failing=0", f"demos.episodes=[{file}]"]
    rooms = [f"env.settings.{name}={list(v) if isinstance(v, tuple) else v}" for name, v in ROOMS.items()]
    config = load_config("sokoban-tiny", [*settings, *rooms])
    assert config.demos.episodes == (file,)
    out = tmp_path / "demos"
    for _ in range(2):
        run_demos_stage(config, out)
    assert [t.task_id for t in load_demos(out)[0]] == [solved["task"]]
    written(tmp_path, solved, solved)
    with pytest.raises(ConfigError, match=r"made with other settings:\n.*demos\.episodes"):
        run_demos_stage(config, out)


def test_the_files_are_found_from_another_folder(env, solved, tmp_path, monkeypatch, capsys):
    """Paths are relative to where the command was started, as ``demos.json`` says."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    (project / "data").mkdir(parents=True)
    elsewhere.mkdir()
    monkeypatch.chdir(project)
    rooms = f"env.settings={{train_rooms: 12, validation_rooms: 2, test_rooms: 2, solution: {[2, 6]}}}"
    none = ["demos={expert: 0, winning: 0, failing: 0}"]
    recorded = project / "runs" / "a" / "trajectories"
    write_trajectories(recorded / "iteration-00001.jsonl.gz", collected(env, written(tmp_path, solved))[0], 1)

    def of(file, run):
        return load_config(None, [rooms, *none, f"demos.episodes=[{file}]", f"demos.recorded=[{run}]"])

    file = Path(written(project / "data", solved)).relative_to(project)
    config = of(file, "runs/a")
    run_demos_stage(config, Path("demos"))
    made = json.loads((project / "demos" / "demos.json").read_text())
    assert (made["paths_from"], "episodes" in made["settings"]["demos"]) == ("..", False)
    files = sorted((project / "demos").glob("*.gz"))
    times = [path.stat().st_mtime_ns for path in files]
    monkeypatch.chdir(elsewhere)
    for same in (
        of("../project/data/own.jsonl", "../project/runs/a"),
        of(project / file, project / "runs/a"),
    ):
        run_demos_stage(same, project / "demos")
    assert [path.stat().st_mtime_ns for path in files] == times, "nothing was played again"
    for missing, words in (
        (of(file, project / "runs/a"), "data/own.jsonl"),
        (of(project / file, "runs/a"), r"(?s)demos\.recorded: .*project/runs/a.* there, \['runs/a'\] now"),
    ):
        with pytest.raises((ConfigError, DataError), match=words):
            run_demos_stage(missing, project / "demos")
    more = recorded / "iteration-00002.jsonl.gz"  # the run has trained on
    shutil.copy(recorded / "iteration-00001.jsonl.gz", more)
    with pytest.raises(ConfigError, match=r"demos\.recorded_digests"):
        run_demos_stage(of(project / file, project / "runs/a"), project / "demos")
    more.unlink()
    (project / file).write_text(json.dumps({**solved, "imitate": False}) + "\n")
    with pytest.raises(ConfigError, match=r"demos\.episodes_digests"):
        run_demos_stage(of(project / file, project / "runs/a"), project / "demos")
    written(project / "data", solved)
    del made["paths_from"], made["settings"]["demos"]["recorded_digests"]
    del made["settings"]["demos"]["episodes_digests"]  # as an older version wrote it
    made["settings"]["demos"]["episodes"] = {str(file): episodes_digests([str(project / file)])[0]}
    (project / "demos" / "demos.json").write_text(json.dumps(made))
    monkeypatch.chdir(project)
    run_demos_stage(config, Path("demos"))
    assert [path.stat().st_mtime_ns for path in files] == times
