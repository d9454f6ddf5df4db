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

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.demos import CollectHooks, collect_demos, load_demos, save_demos
from repro_rl.errors import BudgetError, ConfigError
from repro_rl.run.models import load_policy
from repro_rl.run.setup import set_up
from repro_rl.train import PromptModes, imitation_data
from repro_rl.types import Reflection
from support.api_server import KEY, Reply, completion, error, sensible
from support.command import run_command
from support.demos import records

ROOMS = (
    "env.settings={style: grid, train_rooms: 12, validation_rooms: 2, test_rooms: 2, solution: [2, 5], "
    "max_steps: 6}"
)
COUNTS = {"expert": 6, "winning": 4, "failing": 8}


@pytest.fixture
def server(server, monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", KEY)
    return server


@pytest.fixture
def settings(server, tmp_path):
    return [
        ROOMS,
        f"demos={{{', '.join(f'{name}: {count}' for name, count in COUNTS.items())}, "
        "labelled_mistakes: [0.5, 1.0], agent: planner, mistakes: [0.0], wandering: 0, annotator: http}",
        f"api={{base_url: '{server.url}', model: judge, key_env: TEST_API_KEY, backoff: 0, retries: 1, "
        f"give_up: 0, cache: '{tmp_path / 'cache'}'}}",
    ]


def collect(config, hooks=None):
    env = make("sokoban", **config.env.settings)
    return collect_demos(env, env.panel("train").ids, config.demos, seed=0, config=config, hooks=hooks)


def judged(body):
    """The reflection prompt, in full style, of this request."""
    return body["messages"][0]["content"]


# Labels -------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_answers(server, settings):
    answered, to_label = [], []
    hooks = CollectHooks(on_to_label=to_label.append, on_label=answered.append)
    experts, labelled = collect(load_config("sokoban-tiny", settings), hooks)
    assert to_label == [18]
    notes = hooks.notes
    assert (len(experts), len(labelled)) == (6, 12)
    for trajectory in (*experts, *labelled):
        total = len(trajectory.steps)
        given = [90 * t // total for t in range(1, total + 1)]
        values = (*given[:-1], 100 if trajectory.won else given[-1])
        assert trajectory.reflection.values == values
        assert tuple(step.online for step in trajectory.steps) == values
        assert trajectory.reflection.defects == ()
        assert "Look back at a finished attempt" in trajectory.reflection.prompt  # full style for the judge
        assert trajectory.reflection.completion.text.startswith("<progress>")
    assert sum(answered) == 18
    assert (notes["episodes"], notes["unlabelled"], notes["defects"]) == (18, 0, {})
    assert notes["usage"]["answers_new"] == server.calls == len({judged(body) for body in server.bodies})
    assert {body["temperature"] for body in server.bodies} == {0.0}


def test_the_outcome_corrects_the_end(server, settings):
    server.reply = lambda body, number: completion(sensible(body).replace("100", "70"))
    hooks = CollectHooks()
    experts, labelled = collect(load_config("sokoban-tiny", settings), hooks)
    assert all(t.reflection.values[-1] == 100 for t in (*experts, *labelled) if t.won)
    assert hooks.notes["corrected_by_outcome"] == 10  # the 6 experts and the 4 winning ones


def test_settings_that_must_fail_do_so_before_anything_is_played(server, settings, monkeypatch):
    played = []
    monkeypatch.delenv("TEST_API_KEY")
    with pytest.raises(ConfigError, match=r"TEST_API_KEY \(api\.key_env\) is not set"):
        collect(load_config("sokoban-tiny", settings), CollectHooks(on_done=played.append))
    assert played == []


# Unreadable answers -------------------------------------------------------------------------------

BAD = {
    "garbage": ("It went quite well, I think.", "stop", "no_values", "no line of the form"),
    "too few values": ("<progress>\nstep 1: 5\n</progress>", "stop", "wrong_count", "one line for each step"),
    "not a number": ("<progress>\nstep 1: half\n</progress>", "stop", "bad_value", "not a whole number"),
    "above 100": ("<progress>\nstep 1: 400\n</progress>", "stop", "out_of_range", "between 0 and 100"),
    "nothing": (None, "stop", "empty", "it is empty"),
    "cut off": ("<think>Let me see", "length", "cut_off", "too long"),
}


@pytest.mark.parametrize(("text", "finish", "defect", "note"), BAD.values(), ids=BAD)
def test_an_unreadable_answer_is_asked_again_with_a_note(server, settings, text, finish, defect, note):
    def reply(body, number):
        asked = " ".join(turn["content"] for turn in body["messages"])
        return completion(sensible(body)) if "cannot be used" in asked else completion(text, finish)

    server.reply = reply
    hooks = CollectHooks()
    experts, labelled = collect(load_config("sokoban-tiny", settings), hooks)
    assert hooks.notes["unlabelled"] == 0
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
    hooks = CollectHooks()
    experts, labelled = collect(config, hooks)
    notes = hooks.notes
    lost = [t for t in labelled if not t.won]
    assert len(lost) == 8
    assert all(t.reflection.values is None for t in lost)
    assert all(step.online is None for t in lost for step in t.steps)
    defects = {t.reflection.defects for t in lost}
    assert defects == {("no_answer",), ("too_long",), ("text_outside", "no_values")}
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
    setup = set_up(small)
    text = load_policy(small.policy, setup.initial_model((*experts, *labelled), tmp_path / "tiny")).codec
    act, progress = setup.prompts_with(progress=False), setup.prompts_with(progress=True)
    modes = PromptModes(small.warmup.forward_modes, act, progress, demonstrations=2, seed=0)
    data = imitation_data(setup.context(text), text, modes, experts, labelled)
    assert (len(data.won), len(data.lost)) == (9, 0)  # reflections of labelled episodes only
    steps = [len(t.steps) for t in experts]
    assert len(data.actions) == sum(steps) + sum(steps[1:])  # its actions are still taught, not its progress


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
    status, output = run_command(
        capsys, monkeypatch, "demos", "-o", out, *settings, "api.prices={prompt: 1, completion: 2}"
    )
    assert status == 0, output
    assert "8 of 18 episodes stay unlabelled" in output
    assert f"judge: {server.calls} answers in {server.calls} calls" in output
    assert "36/36" in output  # played, then labelled
    summary = json.loads((out / "demos.json").read_text())
    assert summary["annotation"]["unlabelled"] == summary["labelled"]["unlabelled"] == 8
    assert summary["annotation"]["usage"]["cost"] == pytest.approx(server.calls * 20 / 1e6)
    assert summary["settings"]["annotator"]["api"]["model"] == "judge"
    calls = server.calls
    status, output = run_command(capsys, monkeypatch, "demos", "-o", out, *settings)
    assert (status, server.calls) == (0, calls)
    assert "Demonstrations are in" in output
    status, output = run_command(capsys, monkeypatch, "demos", "-o", out, *settings, "api.model=other")
    assert status == 2
    assert "other settings" in output
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in everything
    assert KEY not in output


def test_a_wrong_key_stops_the_annotation(server, settings, tmp_path, monkeypatch, capsys):
    server.reply = lambda body, number: error(401, f"Incorrect API key provided: {KEY}")
    status, output = run_command(capsys, monkeypatch, "demos", "-o", tmp_path / "demos", *settings)
    assert status == 2
    assert "ApiError" in output
    assert "TEST_API_KEY" in output
    assert KEY not in output
    assert server.calls <= 8
    assert not (tmp_path / "demos" / "demos.json").exists()


def test_an_annotation_without_a_single_text_ends_with_the_reason(
    server, settings, tmp_path, monkeypatch, capsys
):
    server.reply = lambda body, number: completion(None, refusal="I do not rate games.")
    status, output = run_command(capsys, monkeypatch, "demos", "-o", tmp_path / "demos", *settings)
    assert status == 2
    assert "refused (a refusal). The last: I do not rate games." in " ".join(output.split())
    assert not (tmp_path / "demos" / "demos.json").exists()
