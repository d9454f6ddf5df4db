"""The annotator ``http``: labels by an external model, asked again when unreadable, never paid for twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sqlite3
import time

import pytest

from api_server import KEY, Reply, Server, completion, error, sensible
from command import run_command
from repro_rl import make
from repro_rl.config import load_config
from repro_rl.demos import (
    ANNOTATORS,
    AnnotationContext,
    BatchAnnotator,
    collect_demos,
    load_demos,
    save_demos,
)
from repro_rl.demos.annotators import annotate
from repro_rl.errors import BudgetError, ConfigError, DataError
from repro_rl.rollout import trajectory_record
from repro_rl.train.build import build_pool, initial_model, load_policy
from repro_rl.train.warmup import warmup_data
from repro_rl.types import Reflection

ROOMS = (
    "env.settings={style: grid, train_rooms: 12, validation_rooms: 2, test_rooms: 2, solution: [2, 5], "
    "max_steps: 6}"
)
COUNTS = {"expert": 6, "winning": 4, "failing": 8}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_API_KEY", KEY)
    running = Server()
    yield running
    running.close()


@pytest.fixture
def settings(server, tmp_path):
    return [
        ROOMS,
        f"demos={{{', '.join(f'{name}: {count}' for name, count in COUNTS.items())}, noise: [0.5, 1.0], "
        "annotator: http}",
        f"api={{base_url: '{server.url}', model: judge, key_env: TEST_API_KEY, backoff: 0, retries: 1, "
        f"give_up: 0, cache: '{tmp_path / 'cache'}'}}",
    ]


def collect(config, **more):
    env = make("sokoban", **config.env.settings)
    return collect_demos(
        env,
        env.panel("train").ids,
        **COUNTS,
        noise=config.demos.noise,
        annotator=config.demos.annotator,
        seed=0,
        config=config,
        **more,
    )


def records(demos):
    return [trajectory_record(t, 0) for part in demos for t in part]


def judged(body):
    """The reflection prompt, in full style, of this request."""
    return body["messages"][0]["content"]


# Labels -------------------------------------------------------------------------------------------


def test_labels_are_what_the_model_said(server, settings):
    notes = {}
    heard = []
    experts, labelled = collect(load_config("sokoban-tiny", settings), notes=notes, on_label=heard.append)
    assert (len(experts), len(labelled)) == (6, 12)
    for trajectory in (*experts, *labelled):
        total = len(trajectory.steps)
        said = [90 * t // total for t in range(1, total + 1)]
        values = (*said[:-1], 100 if trajectory.won else said[-1])
        assert trajectory.reflection.values == values
        assert tuple(step.online for step in trajectory.steps) == values
        assert trajectory.reflection.defects == ()
        assert "Look back at a finished attempt" in trajectory.reflection.prompt  # full style for the judge
        assert trajectory.reflection.completion.text.startswith("<progress>")
    assert sum(heard) == 18
    assert (notes["episodes"], notes["unlabelled"], notes["defects"]) == (18, 0, {})
    assert notes["usage"]["answers_new"] == server.calls == len({judged(body) for body in server.bodies})
    assert {body["temperature"] for body in server.bodies} == {0.0}


def test_the_outcome_corrects_the_end(server, settings):
    server.reply = lambda body, number: completion(sensible(body).replace("100", "70"))
    notes = {}
    experts, labelled = collect(load_config("sokoban-tiny", settings), notes=notes)
    assert all(t.reflection.values[-1] == 100 for t in (*experts, *labelled) if t.won)
    assert notes["corrected_by_outcome"] == 10  # the 6 experts and the 4 winning ones


def test_batch_annotators_of_ones_own():
    def halves(trajectories, context):
        assert isinstance(context, AnnotationContext)
        return [
            Reflection("", t.steps[0].completion, (50,) * len(t.steps) if t.won else None, ())
            for t in trajectories
        ]

    env = make("sokoban", train_rooms=6, validation_rooms=1, test_rooms=1, solution=(2, 4))
    counts = {"expert": 2, "winning": 0, "failing": 2, "noise": (1.0,), "seed": 0}
    try:
        ANNOTATORS.register("halves", BatchAnnotator(halves))
        ANNOTATORS.register("few", BatchAnnotator(lambda trajectories, context: []))
        notes = {}
        experts, labelled = collect_demos(
            env, env.panel("train").ids, annotator="halves", notes=notes, **counts
        )
        with pytest.raises(DataError, match="'few' gave 0 labels for 4 episodes"):
            collect_demos(env, env.panel("train").ids, annotator="few", **counts)
        with pytest.raises(TypeError, match="labels batches"):
            annotate(experts[0], "halves", None)
    finally:
        ANNOTATORS._items.pop("halves", None)
        ANNOTATORS._items.pop("few", None)
    assert all(t.reflection.values[-1] == 100 for t in experts)
    assert [t.reflection.defects for t in labelled] == [("unlabelled",)] * 2
    assert notes["defects"] == {"unlabelled": 2}
    with pytest.raises(ConfigError, match=r"needs the settings api\.base_url and api\.model"):
        collect_demos(env, env.panel("train").ids, annotator="http", **counts)


def test_settings_that_must_fail_do_so_before_anything_is_played(server, settings, monkeypatch):
    heard = []
    monkeypatch.delenv("TEST_API_KEY")
    with pytest.raises(ConfigError, match=r"TEST_API_KEY \(api\.key_env\) is not set"):
        collect(load_config("sokoban-tiny", settings), on_done=heard.append)
    assert heard == []


# Unreadable answers -------------------------------------------------------------------------------

BAD = {
    "garbage": ("It went quite well, I think.", "stop", "no_values", "no line of the form"),
    "too few values": ("<progress>\nstep 1: 5\n</progress>", "stop", "wrong_count", "one line for each step"),
    "not a number": ("<progress>\nstep 1: half\n</progress>", "stop", "bad_value", "not a whole number"),
    "above 100": ("<progress>\nstep 1: 400\n</progress>", "stop", "out_of_range", "between 0 and 100"),
    "nothing": (None, "stop", "no_values", "no line of the form"),
    "cut off": ("<think>Let me see", "length", "cut_off", "too long"),
}


@pytest.mark.parametrize(("text", "finish", "defect", "note"), BAD.values(), ids=BAD)
def test_an_unreadable_answer_is_asked_again_with_a_note(server, settings, text, finish, defect, note):
    def reply(body, number):
        asked = " ".join(turn["content"] for turn in body["messages"])
        return completion(sensible(body)) if "cannot be used" in asked else completion(text, finish)

    server.reply = reply
    notes = {}
    experts, labelled = collect(load_config("sokoban-tiny", settings), notes=notes)
    assert notes["unlabelled"] == 0
    assert all(t.reflection.values is not None for t in (*experts, *labelled))
    second = [body for body in server.bodies if "cannot be used" in body["messages"][-1]["content"]]
    assert len(second) == len(server.bodies) / 2
    for body in second:
        *before, last = body["messages"]
        total = re.search(r"Now give the (\d+) values", judged(body))[1]
        assert last["role"] == "user"
        assert note in last["content"]
        assert f"exactly {total} lines" in last["content"]
        if text is None:  # no empty turn: the note stands in the first one
            assert before == []
        else:
            assert [turn["role"] for turn in before] == ["user", "assistant"]
            assert before[1]["content"] == text


def test_what_stays_unreadable_or_unanswered_is_kept_unlabelled(server, settings, tmp_path):
    """Failures: no server, refused prompts, garbage; successes: labels. Then a warmup on what is left."""
    kinds = {}

    def reply(body, number):
        if "the last is 100" in judged(body):
            return completion(sensible(body))
        kind = kinds.setdefault(judged(body), len(kinds) % 3)
        return [error(503), error(400, "too long", "context_length_exceeded"), completion("no idea")][kind]

    server.reply = reply
    config = load_config("sokoban-tiny", [*settings, "api.concurrency=1"])
    notes = {}
    experts, labelled = collect(config, notes=notes)
    lost = [t for t in labelled if not t.won]
    assert len(lost) == 8
    assert all(t.reflection.values is None for t in lost)
    assert all(step.online is None for t in lost for step in t.steps)
    found = {t.reflection.defects for t in lost}
    assert found == {("no_answer",), ("refused",), ("text_outside", "no_values")}
    assert notes["unlabelled"] == 8
    assert notes["defects"]["text_outside"] == notes["defects"]["no_values"]
    garbage = [body for body in server.bodies if len(body["messages"]) == 5]
    assert len(garbage) == sum(kind == 2 for kind in kinds.values())  # asked three times, then given up
    save_demos(tmp_path / "demos", experts, labelled)
    again = load_demos(tmp_path / "demos")
    assert (
        records(again)[6:][0]["reflection"]["defects"]
        == records((experts, labelled))[6:][0]["reflection"]["defects"]
    )
    experts[0].reflection = Reflection("", experts[0].reflection.completion, None, ("no_answer",))
    for step in experts[0].steps:
        step.online = None
    small = load_config(
        "sokoban-tiny",
        [
            *settings,
            "policy.tiny={hidden: 16, layers: 1, heads: 2, kv_heads: 2, ffn: 16}",
            "env.settings.style=relative",
        ],
    )
    pool = build_pool(small)
    model = load_policy(small, initial_model(small, pool.first, (*experts, *labelled), tmp_path / "tiny"))
    data = warmup_data(small, model, pool, experts, labelled)
    assert (len(data.won), len(data.lost)) == (9, 0)  # reflections of labelled episodes only
    steps = [len(t.steps) for t in experts]
    assert len(data.forward) == sum(steps) + sum(steps[1:])  # its actions are still taught, not its progress


# Never paid for twice -----------------------------------------------------------------------------


def test_a_budget_ends_the_annotation_and_a_larger_one_goes_on(server, settings):
    with pytest.raises(BudgetError, match="budget of 7 calls is used up"):
        collect(load_config("sokoban-tiny", [*settings, "api.budget.calls=7"]))
    assert server.calls == 7
    collect(load_config("sokoban-tiny", settings))
    assert max(server.counts.values()) == 1


def rows_of(path):
    try:
        with sqlite3.connect(path) as db:
            return db.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_in_the_middle_it_asks_nothing_again(server, settings, tmp_path):
    """kill -9 with calls under way; repeated, only what had no answer is asked. The labels are the same."""
    config = load_config("sokoban-tiny", [*settings, "api.concurrency=2"])
    whole = records(collect(load_config("sokoban-tiny", [*settings, f"api.cache={tmp_path / 'other'}"])))
    distinct = server.calls
    server.forget()
    allowed = 7
    answered = set()

    def reply(body, number):
        if len(answered) >= allowed:
            return Reply(hang=True, reset=True)  # under way when the process dies
        answered.add(judged(body))
        return completion(sensible(body))

    server.reply = reply
    child = multiprocessing.get_context("fork").Process(target=collect, args=(config,))
    child.start()
    end = time.monotonic() + 60
    while rows_of(tmp_path / "cache" / "answers.sqlite") < allowed or server.calls < allowed + 2:
        assert time.monotonic() < end, "the child made no progress"
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    server.release.set()
    server.reply = lambda body, number: completion(sensible(body))
    server.forget()
    assert records(collect(config)) == whole
    assert server.calls == distinct - allowed
    assert answered.isdisjoint(judged(body) for body in server.bodies)
    server.forget()
    assert records(collect(config)) == whole
    assert server.calls == 0


# The command --------------------------------------------------------------------------------------


def test_demos_on_the_command_line(server, settings, tmp_path, monkeypatch, capsys):
    server.reply = lambda body, number: (
        completion(sensible(body)) if "the last is 100" in judged(body) else completion("no idea")
    )
    out = tmp_path / "demos"
    status, said = run_command(
        capsys, monkeypatch, "demos", "-o", out, *settings, "api.prices={prompt: 1, completion: 2}"
    )
    assert status == 0, said
    assert "8 of 18 episodes stay unlabelled" in said
    assert f"judge: {server.calls} answers in {server.calls} calls" in said
    assert "36/36" in said  # played, then labelled
    summary = json.loads((out / "demos.json").read_text())
    assert summary["annotation"]["unlabelled"] == summary["labelled"]["unlabelled"] == 8
    assert summary["annotation"]["usage"]["cost"] == pytest.approx(server.calls * 20 / 1e6)
    assert summary["settings"]["annotator"]["api"]["model"] == "judge"
    calls = server.calls
    status, said = run_command(capsys, monkeypatch, "demos", "-o", out, *settings)
    assert (status, server.calls) == (0, calls)
    assert "Demonstrations are in" in said
    status, said = run_command(capsys, monkeypatch, "demos", "-o", out, *settings, "api.model=other")
    assert status == 2
    assert "other settings" in said
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in everything
    assert KEY not in said


def test_a_wrong_key_stops_the_annotation(server, settings, tmp_path, monkeypatch, capsys):
    server.reply = lambda body, number: error(401, f"Incorrect API key provided: {KEY}")
    status, said = run_command(capsys, monkeypatch, "demos", "-o", tmp_path / "demos", *settings)
    assert status == 2
    assert "ApiError" in said
    assert "TEST_API_KEY" in said
    assert KEY not in said
    assert server.calls <= 8
    assert not (tmp_path / "demos" / "demos.json").exists()
