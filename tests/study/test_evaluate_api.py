"""Evaluating an API model: answers are kept, failures are failed episodes, and repeating mends them."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.cli.api import usage_notes
from repro_rl.config import load_config
from repro_rl.errors import ApiError, BudgetError, ConfigError
from repro_rl.files import read_json
from repro_rl.rollout import read_trajectories
from repro_rl.rollout.context import window
from repro_rl.study.evaluate import EvalRequest, evaluate
from support.api_evaluation import evaluation_settings
from support.api_server import KEY, completion, error, sensible


@pytest.fixture
def settings(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    return evaluation_settings(server.url, tmp_path / "cache")


def without_time(result):
    return {name: value for name, value in result.items() if name not in ("seconds", "api")}


def test_an_evaluation_repeated_makes_no_call(server, settings, tmp_path):
    config = load_config("sokoban-qwen3", settings)
    first = evaluate(config, Path("api:m"), EvalRequest("m", out=tmp_path / "run"))
    calls = server.calls
    assert first["episodes"] == 4
    assert first["errors"] == 0
    assert first["checkpoint"] == "api:m"
    assert first["format_rate"] == 1.0
    assert first["progress"]["retrospective"]["covered"] == 1.0
    assert first["api"]["calls_sent"] == first["api"]["answers_new"] == calls
    records = (tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz").read_bytes()
    second = evaluate(config, Path("api:m"), EvalRequest("m", out=tmp_path / "run"))
    assert server.calls == calls
    assert second["api"] == first["api"] | {"calls_sent": 0, "answers_new": 0, "answers_found": calls}
    assert without_time(first) == without_time(second)
    assert (tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz").read_bytes() == records
    for record in read_trajectories(tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz"):
        assert all((step["prompt_tokens"], step["tokens"]) == (10, 5) for step in record["steps"])
        assert len(record["reflection"]["values"]) == len(record["steps"])
    evaluate(load_config("sokoban-qwen3", [*settings, "eval.seed=5"]), Path("api:m"), EvalRequest("m"))
    assert server.calls > calls  # another seed, other samples


def test_calls_without_an_answer_are_failed_episodes_and_repeating_mends_them(server, settings, tmp_path):
    def reply(body, number):
        prompt = body["messages"][0]["content"]
        if "You are at step 2 " in prompt:
            if len(lost) < 2:  # the first two prompts of a second step that come by
                lost.add(prompt)
            if prompt in lost:
                return error(503)
        return completion(sensible(body))

    lost: set[str] = set()

    server.reply = reply
    config = load_config("sokoban-qwen3", [*settings, "api.concurrency=1"])
    result = evaluate(config, Path("api:m"), EvalRequest("m", out=tmp_path / "run"))
    assert result["errors"] == result["unanswered"] == 2
    assert result["error_reasons"] == {"no completion: status 503: no": 2}
    assert result["episodes"] == 4
    records = list(read_trajectories(tmp_path / "run" / "trajectories" / "eval-m.jsonl.gz"))
    broken = [record for record in records if record["error"]]
    assert [record["error"] for record in broken] == ["no completion at step 2: status 503: no"] * 2
    assert all(len(record["steps"]) == 1 for record in broken)
    server.reply = lambda body, number: completion(sensible(body))
    again = evaluate(config, Path("api:m"), EvalRequest("m"))
    assert again["errors"] == 0
    assert again["api"]["answers_found"] >= result["api"]["answers_new"] - 2  # two short reflections differ


def test_reflections_without_an_answer_or_sense(server, settings, tmp_path):
    def reply(body, number):
        judged = "Now give the" in body["messages"][0]["content"]
        return completion("I would say it went well.") if judged else completion(sensible(body))

    server.reply = reply
    config = load_config("sokoban-qwen3", settings)
    evaluate(config, Path("api:m"), EvalRequest("m", out=tmp_path / "a"))
    path = Path("trajectories") / "eval-m.jsonl.gz"
    for record in read_trajectories(tmp_path / "a" / path):
        assert record["reflection"]["values"] is None
        assert "text_outside" in record["reflection"]["defects"]
    server.reply = lambda body, number: (
        error(500) if "Now give the" in body["messages"][0]["content"] else completion(sensible(body))
    )
    config = load_config("sokoban-qwen3", [*settings, "api.model=n"])
    evaluate(config, Path("api:n"), EvalRequest("m", out=tmp_path / "b"))
    for record in read_trajectories(tmp_path / "b" / path):
        assert record["reflection"]["defects"] == ["no_answer"]


def test_compact_prompts_are_refused(settings):
    with pytest.raises(ConfigError, match=r"compact prompts of tiny models.*-c sokoban-qwen3"):
        evaluate(load_config("sokoban-tiny", settings), Path("api:m"), EvalRequest("m"))


def test_guided_reflections_that_no_server_is_asked_for_are_refused_before_an_episode(server, settings):
    guided = load_config("sokoban-qwen3", [*settings, "prompt.reflect_form=guided", "prompt.think=off"])
    with pytest.raises(ConfigError, match=r"api\.guided is 'off'.*or prompt\.reflect_form=free"):
        evaluate(guided, Path("api:m"), EvalRequest("m"))
    assert server.calls == 0
    result = evaluate(guided, Path("api:m"), EvalRequest("m", judge=False))  # acting needs no form
    assert (result["episodes"], result["errors"]) == (4, 0)


def test_what_was_lost_is_in_the_result_and_on_the_screen(server, settings, tmp_path):
    """Prompts of a second step are too long; reflections hold only reasoning."""

    def reply(body, number):
        prompt = body["messages"][0]["content"]
        if "Now give the" in prompt:
            return completion(None, reasoning_content="Let me see.")
        if "You are at step 2 " in prompt:
            return error(400, "request (5000 tokens) exceeds the available context size (4096 tokens)")
        return completion(sensible(body))

    server.reply = reply
    config = load_config("sokoban-qwen3", settings)
    result = evaluate(config, Path("api:m"), EvalRequest("m", out=tmp_path / "run"))
    lost = result["api"]["lost"]
    assert lost["too_long"] == result["errors"] > 0
    assert lost["reasoning_only"] > 0
    assert read_json(tmp_path / "run" / "eval" / "m.json")["api"]["lost"] == lost
    text = "\n".join(usage_notes(result))
    assert f"too_long {lost['too_long']} of" in text
    assert "exceeds the available context size (4096 tokens)" in text
    assert "Warning: reasoning_only" in text


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (completion(None, finish="content_filter"), r"filtered.*finish_reason content_filter"),
        (error(400, "Content Exists Risk"), "filtered.*status 400: Content Exists Risk"),
        (error(503, "no model is loaded"), "unavailable.*status 503: no model is loaded"),
    ],
)
def test_an_evaluation_in_which_nothing_was_answered_has_no_result(server, settings, tmp_path, reply, words):
    server.reply = lambda body, number: reply
    config = load_config("sokoban-qwen3", [*settings, "api.retries=0"])
    with pytest.raises(ApiError, match=words):
        evaluate(config, Path("api:m"), EvalRequest("m", out=tmp_path / "run"))
    assert not (tmp_path / "run" / "eval" / "m.json").exists()


@pytest.mark.parametrize("same_cache", [True, False])
def test_a_budget_and_the_counts_outlast_an_interruption(server, settings, tmp_path, monkeypatch, same_cache):
    """Finished episodes are not asked for again, and count; each call gives 10 + 5 tokens."""
    monkeypatch.setattr(window, "MAX_LIVE", 1)  # one episode after the other
    config = load_config("sokoban-qwen3", [*settings, "api.concurrency=1"])
    request = EvalRequest("m", out=tmp_path / "whole", judge=False)
    whole = evaluate(config, Path("api:m"), request)
    calls = server.calls
    server.forget()
    request = EvalRequest("m", out=tmp_path / "run", judge=False)
    budget = f"api.budget.calls={calls - 1}"  # the last episode stays without its last step
    limited = [*settings, "api.concurrency=1", f"api.cache={tmp_path / 'first'}", budget]
    for _ in range(2):
        with pytest.raises(BudgetError, match=rf"{calls - 1} calls is used up \({calls - 1} used\)"):
            evaluate(load_config("sokoban-qwen3", limited), Path("api:m"), request)
        assert server.calls == calls - 1
    cache = "first" if same_cache else "second"
    config = load_config("sokoban-qwen3", [*settings, f"api.cache={tmp_path / cache}"])
    last = evaluate(config, Path("api:m"), request)
    changed = {"api.budget.calls": None, "api.concurrency": 8}  # since the first command
    if not same_cache:
        changed["api.cache"] = str(tmp_path / cache)
    assert last.pop("changed") == changed
    assert without_time(last) == {k: v for k, v in without_time(whole).items() if k != "changed"}
    again = 0 if same_cache else read_steps(tmp_path / "run")[-1] - 1  # of the last episode, paid twice
    assert server.calls == calls + again
    assert last["api"] == whole["api"] | {
        "calls_sent": 1 + again,
        "answers_new": 1 + again,
        "answers_found": calls - 1,
        "prompt_tokens": 10 * (calls + again),
        "completion_tokens": 5 * (calls + again),
    }
    assert not list((tmp_path / "run" / "trajectories").glob("*unfinished*"))


def read_steps(run: Path) -> list[int]:
    """The numbers of steps of the episodes of the evaluation m."""
    records = read_trajectories(run / "trajectories" / "eval-m.jsonl.gz")
    return [len(record["steps"]) for record in records]
