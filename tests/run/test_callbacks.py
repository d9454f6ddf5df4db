"""Callbacks of the user's own: how they are found, what they are given, and what their exceptions do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repro_rl.errors import CallbackError, ConfigError
from repro_rl.run.callbacks import Callback, Callbacks, RunInfo, load_callbacks, register_callback

INFO = RunInfo("train", Path("runs/x"), {}, False, ())


class Recorder(Callback):
    """Notes the events it is told of."""

    def __init__(self):
        self.events = []

    def on_start(self, run):
        self.events.append(("start", run.stage))

    def on_row(self, row):
        self.events.append(("row", row.pop("iteration")))

    def on_validation(self, iteration, metrics):
        self.events.append(("validation", iteration, metrics))

    def on_checkpoint(self, iteration, folder):
        self.events.append(("checkpoint", iteration, folder.name))

    def on_end(self, error):
        self.events.append(("end", error))


class Failing(Callback):
    """Fails at every row and at the end."""

    def on_row(self, row):
        raise ValueError("what a pity")

    def on_end(self, error):
        raise ValueError("even now")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's: what it holds is text, and it can be imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name="my_callbacks_21"):
        (tmp_path / f"{name}.py").write_text("from repro_rl import Callback\n" + text)
        sys.modules.pop(name, None)
        return name

    return write


def test_every_event_reaches_every_callback_with_a_row_of_its_own():
    one, two = Recorder(), Recorder()
    calls = Callbacks([("one", one), ("two", two)])
    row = {"iteration": 3, "validation/success": 0.5, "validation/tasks": 10, "seconds": 1.0}
    calls.start(INFO)
    calls.validation(3, row)
    calls.row(row)
    calls.checkpoint(3, Path("checkpoints/00003"))
    calls.end(None)
    calls.end(OSError())  # once only
    assert (
        one.events
        == two.events
        == [
            ("start", "train"),
            ("validation", 3, {"validation/success": 0.5, "validation/tasks": 10}),
            ("row", 3),
            ("checkpoint", 3, "00003"),
            ("end", None),
        ]
    )
    assert row["iteration"] == 3


def test_episodes_are_made_only_for_those_who_ask():
    made = []

    class Asking(Callback):
        def on_episodes(self, iteration, episodes):
            episodes.clear()

    def records():
        made.append(1)
        return [{"task_id": "a"}]

    Callbacks([("one", Recorder())]).episodes(1, records)
    assert made == []
    Callbacks([("one", Asking()), ("two", Asking())]).episodes(1, records)
    assert made == [1, 1]


def test_an_exception_is_reported_by_name_once_and_counted():
    said, other = [], Recorder()
    calls = Callbacks([("mine", Failing()), ("other", other)], notify=said.append)
    calls.start(INFO)
    for i in (1, 2, 3):
        calls.row({"iteration": i})
    assert said == [
        "Callback mine: on_row failed: ValueError: what a pity. The run goes on, and further failures are "
        "counted."
    ]
    calls.end(None)
    assert [event[0] for event in other.events] == ["start", "row", "row", "row", "end"]
    assert "on_end failed: ValueError: even now" in said[1]
    assert said[2] == "Callback mine: on_row failed 3 times in all."


def test_without_a_screen_it_is_a_warning_of_python():
    calls = Callbacks([("mine", Failing())])
    calls.start(INFO)
    with pytest.warns(UserWarning, match="Callback mine: on_row failed"):
        calls.row({"iteration": 1})


def test_an_exception_stops_the_run_where_that_is_asked_for():
    calls = Callbacks([("mine", Failing())], "stop", notify=lambda text: None)
    calls.start(INFO)
    with pytest.raises(CallbackError, match=r"Callback mine: on_row failed.*repeating it continues it"):
        calls.row({"iteration": 1})
    calls.end(OSError())  # what ends the run is not hidden by another exception


def test_an_interruption_in_a_callback_is_one_of_the_run():
    class Interrupting(Callback):
        def on_row(self, row):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Callbacks([("mine", Interrupting())]).row({"iteration": 1})


def test_callbacks_are_found_by_path_and_by_name(module):
    name = module("class Mine(Callback):\n    class Inner(Callback): ...\ndef make(): return Mine()\n")
    register_callback("recorder")(Recorder)
    names = [f"{name}:Mine", f"{name}:Mine.Inner", f"{name}:make", "recorder"]
    loaded = load_callbacks(names)
    assert [given for given, _ in loaded] == names
    assert [type(callback).__name__ for _, callback in loaded] == ["Mine", "Inner", "Mine", "Recorder"]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("", "nowhere_21:X", "cannot import 'nowhere_21'.*PYTHONPATH"),
        ("", "recordre", "Unknown callback 'recordre'.*package.module:Class"),
        ("", "my_callbacks_21:Absent", "there is no 'Absent' in my_callbacks_21"),
        ("Mine = 7", "my_callbacks_21:Mine", "is a int, not a class or function"),
        (
            "class Mine(Callback):\n    def on_evaluation(self, iteration, metrics): ...",
            "my_callbacks_21:Mine",
            "has on_evaluation, which is never called; did you mean 'on_validation'",
        ),
        (
            "class Mine(Callback):\n    def on_rows(self, row): ...",
            "my_callbacks_21:Mine",
            "has on_rows, which is never called; did you mean 'on_row'",
        ),
        ("class Mine: ...", "my_callbacks_21:Mine", "gives a Mine, not a repro_rl.Callback"),
        ("def Mine(): raise KeyError('x')", "my_callbacks_21:Mine", "cannot be built: KeyError: 'x'"),
        (
            "1/0",
            "my_callbacks_21:Mine",
            r"cannot import .*ZeroDivisionError.*\(my_callbacks_21\.py, line 2\)",
        ),
        ("raise SystemExit(3)", "my_callbacks_21:Mine", "cannot import 'my_callbacks_21': SystemExit: 3"),
    ],
)
def test_what_cannot_be_found_is_named(module, text, path, words):
    module(text + "\n")
    with pytest.raises(ConfigError, match=rf"(?s)train\.callbacks: .*{words}"):
        load_callbacks([path])


def test_the_message_on_an_unknown_name_is_of_whole_sentences():
    with pytest.raises(
        ConfigError, match=r"'gigpo' is a .*, not a callback: .*=\[MODULE\]\. Give a registered"
    ):
        load_callbacks(["gigpo"])
