"""An evaluation that was stopped goes on after the episodes that it had played."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from safetensors.torch import load_file, save_file

from repro_rl.config import RunConfig, dump_config, load_config
from repro_rl.errors import ConfigError, DataError, PreflightError
from repro_rl.files import LOCK_FILE, only_writer
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.decoding.sessions import CachedSession
from repro_rl.policy.loading import precision
from repro_rl.rollout import read_trajectories
from repro_rl.rollout.context import chat, window
from repro_rl.study.evaluate import EvalHooks, EvalRequest, evaluate
from repro_rl.study.unfinished import UnfinishedEvaluation, kept, restored
from support.episodes import same_episodes


@pytest.fixture(autouse=True)
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four episodes are under way at once; each has up to six steps, all asked for together."""
    for context in (window, chat):
        monkeypatch.setattr(context, "MAX_LIVE", 4)


def settings(warm: Any, *more: str) -> RunConfig:
    return load_config(None, [*warm.settings, "eval.tasks=6", "eval.rollouts=2", *more])


def result_of(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    result = json.loads((out / "eval" / "x.json").read_text())
    assert not list((out / "trajectories").glob("*unfinished*"))
    assert not list((out / "eval").glob(".*"))
    del result["seconds"]
    return result, list(read_trajectories(out / "trajectories" / "eval-x.jsonl.gz"))


def stopping(original: Callable[..., Any], number: int) -> Callable[..., Any]:
    """A method that is interrupted at its ``number``-th call."""
    calls: list[int] = []

    def method(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*args, **more)

    return method


@pytest.mark.parametrize(
    ("more", "judge", "owner", "name", "numbers"),
    [
        ([], True, TransformersPolicy, "generate", (8, 8)),  # in the second four episodes, then in the third
        ([], True, window, "reflect", (1,)),  # acting is over
        ([], False, UnfinishedEvaluation, "add", (3, 2)),  # in the middle of four
        (["prompt.context=chat"], False, CachedSession, "answer", (8,)),
        (["prompt.context=chat"], True, CachedSession, "answer", (9,)),
    ],
)
def test_the_result_is_that_of_an_evaluation_that_nobody_stopped(
    warm: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    judge: bool,
    owner: Any,
    name: str,
    numbers: tuple[int, ...],
) -> None:
    config = settings(warm, *more)
    if more:  # the warm start was taught the other mode; here only the episodes are compared
        monkeypatch.setattr("repro_rl.run.preflight.check_context", lambda *args: None)
    evaluate(config, warm.model, EvalRequest("x", out=tmp_path / "whole", judge=judge))
    for number in numbers:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stopping(getattr(owner, name), number))
            with pytest.raises(KeyboardInterrupt):
                evaluate(config, warm.model, EvalRequest("x", out=tmp_path / "broken", judge=judge))
    assert not (tmp_path / "broken" / "eval" / "x.json").exists()
    done: list[int] = []
    resumed: list[int] = []
    evaluate(
        config,
        warm.model,
        EvalRequest("x", out=tmp_path / "broken", judge=judge),
        hooks=EvalHooks(on_done=done.append, on_resumed=resumed.append),
    )
    assert len(resumed) == 1
    assert resumed[0] > 0
    assert done[0] > 0  # episodes that were not played again
    assert sum(done) == 12
    (result, episodes), (wanted, whole) = result_of(tmp_path / "broken"), result_of(tmp_path / "whole")
    assert result == wanted
    assert same_episodes(episodes, whole)


def test_other_settings_begin_anew(warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TransformersPolicy, "generate", stopping(TransformersPolicy.generate, 8))
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings(warm), warm.model, EvalRequest("x", out=tmp_path))
    done: list[int] = []
    other = settings(warm, "eval.seed=5")
    resumed: list[int] = []
    hooks = EvalHooks(on_done=done.append, on_resumed=resumed.append)
    evaluate(other, warm.model, EvalRequest("x", out=tmp_path), hooks=hooks)
    assert done[0] == 0
    assert not resumed


def test_less_memory_goes_on_with_the_episodes_that_are_there(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TransformersPolicy, "generate", stopping(TransformersPolicy.generate, 8))
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings(warm), warm.model, EvalRequest("x", out=tmp_path))
    done: list[int] = []
    smaller = settings(warm, "policy.max_cache_tokens=512", "policy.max_batch_tokens=512")
    evaluate(smaller, warm.model, EvalRequest("x", out=tmp_path), hooks=EvalHooks(on_done=done.append))
    assert done[0] > 0


def test_a_result_is_of_one_precision_and_names_it(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """policy.dtype=auto on a disk that two machines share: the second one multiplies bfloat16."""
    config = settings(warm)
    request = EvalRequest("x", out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(TransformersPolicy, "generate", stopping(TransformersPolicy.generate, 8))
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, warm.model, request)
    done: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(precision, "MIN_WIDTH", 0)
        patch.setattr(precision, "fast_bfloat16", lambda: (True, "the processor has amx_bf16"))
        half = evaluate(config, warm.model, request, hooks=EvalHooks(on_done=done.append))
        assert done[0] == 0  # none of the first machine's episodes is in the result
        assert evaluate(config, warm.model, request) == half  # found, not played
    assert half["dtype"] == "bfloat16"
    assert half["versions"] == {
        name: importlib.metadata.version(name) for name in ("repro-rl", "torch", "transformers")
    }
    assert half["sampler"]["dtype_reason"] == "weights that are not trained; the processor has amx_bf16"
    written = (tmp_path / "eval" / "x.json").read_bytes()
    again = EvalRequest("x", out=tmp_path, again=True)
    with pytest.raises(ConfigError, match=r"x\.json holds .*dtype bfloat16; this one's is float32.*--name"):
        evaluate(config, warm.model, again)
    assert (tmp_path / "eval" / "x.json").read_bytes() == written
    whole = evaluate(config, warm.model, EvalRequest("y", out=tmp_path))
    assert (whole["dtype"], whole["sampler"]["device"]) == ("float32", "cpu")
    assert whole["key"] == half["key"]  # of tasks, weights and settings


def test_nothing_is_played_where_the_result_cannot_be_written(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(TransformersPolicy, "generate", stopping(TransformersPolicy.generate, 1))
    with pytest.raises(OSError, match="file"):
        evaluate(settings(warm), warm.model, EvalRequest("x", out=tmp_path / "file"))


def test_two_processes_do_not_write_one_result(warm: Any, tmp_path: Path) -> None:
    """Others may train in the folder, or make another evaluation, meanwhile."""
    with (
        only_writer(tmp_path / "eval" / f".x{LOCK_FILE}", "evaluation"),
        only_writer(tmp_path / LOCK_FILE, "training"),
    ):
        with pytest.raises(PreflightError, match=r"Another evaluation .process id \d+. is writing .*eval/x;"):
            evaluate(settings(warm), warm.model, EvalRequest("x", out=tmp_path))
        evaluate(settings(warm, "eval.rollouts=1"), warm.model, EvalRequest("y", out=tmp_path, judge=False))


def test_a_damaged_row_is_named(warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TransformersPolicy, "generate", stopping(TransformersPolicy.generate, 8))
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings(warm), warm.model, EvalRequest("x", out=tmp_path))
    (path,) = (tmp_path / "trajectories").iterdir()
    first, *rest = path.read_text().splitlines(keepends=True)

    def step(row: dict[str, Any]) -> dict[str, Any]:
        return cast(dict[str, Any], row["episode"]["steps"][0])

    damages: dict[str, Callable[[dict[str, Any]], object]] = {
        "goal": lambda row: row["episode"].pop("goal"),
        "text": lambda row: step(row).update(text=7),
        "entropy": lambda row: step(row).update(entropy="low"),
        "shortened": lambda row: row.update(shortened=None),
    }
    for name, damage in damages.items():
        row = json.loads(first)
        damage(row)
        path.write_text(json.dumps(row) + "\n" + "".join(rest))
        with pytest.raises(DataError, match=rf"unfinished-0\.jsonl, record row 1 .*{name}"):
            evaluate(settings(warm), warm.model, EvalRequest("x", out=tmp_path))


def test_an_episode_keeps_all_that_an_evaluation_counts(warm: Any) -> None:
    from repro_rl.rollout import Actor, Judge, PlayOptions, trajectory_record
    from repro_rl.rollout.counts import rollout_metrics
    from repro_rl.run.setup import set_up
    from repro_rl.run.validation import panel_requests

    setup = set_up(settings(warm))
    policy = setup.agent(warm.model)
    actor = Actor(policy, setup.prompts, setup.action_sampling(1.0))
    requests = panel_requests(setup.panel("test", 4).ids, 1)
    judge = Judge(setup.reflection_sampling(1.0))
    played = setup.context(policy.codec).play(requests, actor, judge, PlayOptions("x"))
    played[0].steps[0].shortened = "history"
    again = [restored(json.loads(json.dumps(kept(trajectory)))) for trajectory in played]
    assert [trajectory_record(t, 3) for t in again] == [trajectory_record(t, 3) for t in played]
    assert rollout_metrics(again) == rollout_metrics(played)


def test_another_evaluation_is_not_replaced(warm, tmp_path):
    config = settings(warm)
    evaluate(config, warm.model, EvalRequest("x", out=tmp_path, judge=False))
    before = (tmp_path / "eval" / "x.json").read_bytes()
    limit = json.loads(before)["max_steps"] + 1
    others = ("eval.temperature=0.7", "eval.tasks=5", "eval.rollouts=1", "eval.seed=9")
    for change in (*others, f"env.settings.max_steps={limit}"):
        with pytest.raises(
            ConfigError, match=r"x\.json holds another evaluation: [^@]+@\w{12}, [^@]+; .*--name"
        ):
            evaluate(settings(warm, change), warm.model, EvalRequest("x", out=tmp_path, judge=False))
    assert (tmp_path / "eval" / "x.json").read_bytes() == before
    evaluate(config, warm.model, EvalRequest("x", out=tmp_path))  # the same tasks, now with reflections
    assert json.loads((tmp_path / "eval" / "x.json").read_text())["progress"]["retrospective"]
    evaluate(settings(warm, "eval.tasks=5"), warm.model, EvalRequest("y", out=tmp_path, judge=False))


def test_a_result_tells_which_settings_are_not_the_run_s(warm: Any, tmp_path: Path) -> None:
    config = settings(warm)
    assert evaluate(config, warm.model, EvalRequest("x", judge=False))["changed"] == {}  # written nowhere
    evaluate(config, warm.model, EvalRequest("x", out=tmp_path, judge=False))
    (tmp_path / "config.yaml").write_text(dump_config(config))
    hot = settings(warm, "eval.temperature=0.7", "prompt.history=1")
    evaluate(hot, warm.model, EvalRequest("hot", out=tmp_path, judge=False))
    files = [tmp_path / "eval" / f"{name}.json" for name in ("x", "hot")]
    changed = [json.loads(path.read_text())["changed"] for path in files]
    assert changed == [{}, {"eval.temperature": 0.7, "prompt.history": 1}]


def test_a_finished_result_is_not_made_again(warm: Any, tmp_path: Path) -> None:
    """Unless asked for, or the weights, the settings or the episodes are others."""
    found: list[Path] = []
    played: list[int] = []
    hooks = EvalHooks(on_total=played.append, on_finished=found.append)
    config, request = settings(warm), EvalRequest("x", out=tmp_path)
    first = evaluate(config, warm.model, request, hooks=hooks)
    assert (played, found) == ([12], [])
    assert evaluate(config, warm.model, request, hooks=hooks) == first
    assert (played, found) == ([12], [tmp_path / "eval" / "x.json"])
    smaller = settings(warm, "policy.max_cache_tokens=512", "policy.max_batch_tokens=512")
    assert evaluate(smaller, warm.model, request, hooks=hooks) == first
    assert (played, len(found)) == ([12], 2)
    found.pop()
    evaluate(config, warm.model, EvalRequest("x", out=tmp_path, again=True), hooks=hooks)
    evaluate(config, warm.model, EvalRequest("x", out=tmp_path, judge=False), hooks=hooks)
    other = tmp_path / "other"
    shutil.copytree(warm.model, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, other / "model.safetensors")
    (other / "state.json").unlink()  # the sums of the files as they were
    evaluate(config, other, request, hooks=hooks)
    (tmp_path / "trajectories" / "eval-x.jsonl.gz").unlink()
    evaluate(config, other, request, hooks=hooks)
    assert (played, len(found)) == ([12] * 5, 1)
