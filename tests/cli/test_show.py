"""What is printed: foreign text, tables and bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repro_rl.cli.demo import study_command
from repro_rl.cli.jobs_display import JobsDisplay
from repro_rl.cli.options import parse_seeds
from repro_rl.cli.show import bar, console, gain_sentence, tell, visible
from repro_rl.errors import ConfigError
from repro_rl.study.jobs import Job


def test_foreign_text_cannot_reach_the_terminals_controls() -> None:
    assert visible("a\x1b[31mb\x00\u202ec\n\td é 🧱") == "a\\u001b[31mb\\u0000\\u202ec\n\td é 🧱"


def test_a_terminal_breaks_text_between_words_and_a_pipe_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "You see a handtowelholder 1, and\n██  ·· @ [bold] \x1b"
    monkeypatch.setattr(console, "_width", 20)
    tell(text)
    assert capsys.readouterr().out == f"{text[:-1]}\\u001b\n"
    monkeypatch.setattr(console, "_force_terminal", True)
    monkeypatch.setattr(console, "_color_system", None)
    tell(text)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["You see a", "handtowelholder 1,", "and", "██  ·· @ [bold]", "\\u001b"]


def test_a_bar_without_a_terminal_leaves_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("games", 4) as progress:
        progress.add(note="first")
        progress.add()
        progress.say("a remark")
    with bar("nothing", 4):
        pass
    with bar("asked", 2) as progress:
        progress.more(3)
        progress.add(5)
    assert capsys.readouterr().out.splitlines() == [
        "a remark",
        "games: 2/2 in 0 s  first  (at most 4)",
        "asked: 5/5 in 0 s",
    ]


def test_numbers_and_ranges_of_seeds() -> None:
    assert parse_seeds("0, 3-5,1") == [0, 3, 4, 5, 1]
    for text in ("", "a", "1-", "-1", "0--4"):
        with pytest.raises(ConfigError, match="give numbers such as"):
            parse_seeds(text)
    with pytest.raises(ConfigError, match=r"4-1 has no seeds; .*, 1-4\."):
        parse_seeds("0,4-1")


def test_jobs_without_a_terminal_are_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    jobs = [Job(name, "final", name, 0, tmp_path / name, (), iterations=4) for name in ("a", "b", "c")]
    with JobsDisplay("study", jobs) as display:
        display.event("kept", jobs[0], "finished before")
        display.event("started", jobs[1], "")
        display.tick([])
        clock[0] = 600.0
        display.event("finished", jobs[1], "")
        display.event("failed", jobs[2], "last line\nof a log")
    assert capsys.readouterr().out.splitlines() == [
        "[1/3] started b",
        "[2/3] finished b, about 10 min left",
        "[3/3] failed c (last line)",
        "study: 1 of 3 jobs had finished before",
    ]


def evaluation(name: str, success: float) -> dict[str, Any]:
    return {"name": name, "success": success, "panel": "p[10]@0"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            (0.2, 0.6, 0.5),
            "→ 0.600 (best), 0.500 (last) on p[10]@0: 2.5 times the warm-start's.",
        ),
        (
            (0.0, 0.1, 0.0),
            "0.000 (last) on p[10]@0: the warm-start won nothing, so there is no factor.",
        ),
        ((0.0, 0.0, 0.0), "on p[10]@0: no task was won, before or after."),
        ((0.4, 0.1, 0.2), "on p[10]@0: 0.5 times the warm-start's."),
    ],
)
def test_a_gain_is_said_by_name_and_never_as_infinite(values: tuple[float, ...], words: str) -> None:
    results = [evaluation(*row) for row in zip(("warm-start", "best", "last"), values, strict=True)]
    sentence = gain_sentence(results)
    assert sentence.startswith(f"Held-out success {values[0]:.3f} (warm-start)")
    assert sentence.endswith(words)
    assert gain_sentence(results, held_out=False).startswith("Success on tasks that it was trained on ")


@pytest.mark.parametrize(
    ("source", "overrides", "words"),
    [
        (None, [], "-m repro -m gigpo --seeds 0-4"),
        ("sokoban-tiny", ["seed=1", "train.iterations=2"], "-m repro -m gigpo --seeds 0-4"),
        ("alfworld-tiny", [], "-c alfworld-tiny -m repro -m gigpo --seeds 0-4"),
        (
            "my own.yaml",
            ["plugins=[mine, yours]", "env.name=maze"],
            '-c "my own.yaml" -m repro -m gigpo --seeds 0-4 "plugins=[mine, yours]" env.name=maze',
        ),
    ],
)
def test_the_demo_names_the_study_of_its_own_environment(
    source: str | None, overrides: list[str], words: str
) -> None:
    assert study_command(source, ["repro", "gigpo"], overrides) == f"repro-rl compare {words}"
