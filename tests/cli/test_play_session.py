"""Playing by hand: numbers, shortcuts, undo, a pipe, and keys of a real terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import repro_rl
from repro_rl.cli.play_session import Session, find_action

TASK = "gen-6x6-b1-w1-3-s4-10-seed0/test/0"


def play(text: str, *arguments: str, **env: str) -> str:
    """The output of ``play`` with ``text`` on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "repro_rl", "play", *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8" if not env else "cp1252",
        env={**os.environ, "COLUMNS": "200", **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_is_taken_back_by_playing_again() -> None:
    env = repro_rl.make("sokoban", style="grid")
    session = Session(env, TASK)
    start = session.observation
    assert not session.back()
    session.step("down")
    after = session.observation
    session.step("left")
    assert session.back()
    assert (session.observation, session.actions) == (after, ["down"])
    assert session.back()
    assert (session.observation, session.actions, session.total) == (start, [], 0.0)


def test_words_numbers_and_shortcuts() -> None:
    shortcuts, admissible = {"w": "up"}, ["left", "look around"]
    assert find_action("w", shortcuts, admissible) == "up"
    assert find_action("2", shortcuts, admissible) == "look around"
    assert find_action("look", shortcuts, admissible) == "look"
    assert find_action("0", shortcuts, admissible) is None
    assert find_action("3", shortcuts, admissible) is None
    assert find_action("7", {}, ["7", "8"]) == "7"  # an action that is a number


def test_a_pipe_gives_lines_and_the_board_is_drawn() -> None:
    out = play("2\nu\nu\n9\nq\n", "sokoban", "--task", TASK)
    assert "██  ██  ████\n██      ··██\n██  []██@ ██\n██        ██\n" in out
    assert out.count("step 0 of 15") == 3
    assert "step 1 of 15" in out
    assert "There is no step to take back." in out
    assert "There is no action 9; the numbers go from 1 to 2." in out


def test_a_slip_costs_no_step() -> None:
    """Neither a word that is no action nor an action that is not possible there counts, a real one does."""
    out = play("jump\n\nleft\nup\nq\n", "sokoban", "--task", TASK)
    assert "jump: not possible here; no step is counted." in out
    assert "An empty line: not possible here" in out
    assert "left: not possible here" in out
    assert out.count("step 0 of 15") == 4
    assert out.count("step 1 of 15") == 1
    assert "blah: not possible here" in play("blah\nq\n", "alfworld", "games=12")


def test_the_board_survives_a_console_without_unicode() -> None:
    out = play("", "sokoban", "--expert", "--task", TASK, PYTHONIOENCODING="cp1252")
    assert "##  ##  ####\n##      ··##\n##  []##@ ##" in out
    assert "Solved after" in out


def test_a_numbered_action_with_a_gap_asks_for_its_text() -> None:
    out = play("1\nred shoes\nq\n", "webshop", "generated=[60, 1]")
    assert "What for search[<your query>]?" in out
    assert "step 1 of 15" in out
    assert "(not possible)" not in out


def test_many_actions_stand_in_columns() -> None:
    lines = play("10\nq\n", "alfworld", COLUMNS="80").splitlines()
    at = lines.index("actions:")
    assert re.match(r" {2}1 (.+?) {2,}\d+ ", lines[at + 1])  # number 1, and another on the same line
    assert max(len(line) for line in lines[at + 1 : at + 4]) <= 80
    numbers = [int(n) for n in re.findall(r"(\d+) (?:go to|help|look)", "\n".join(lines[at + 1 : at + 12]))]
    assert set(numbers) >= set(range(1, 11))  # every action is there, whatever the widths
    assert any("step 1 of" in line for line in lines)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('stuck')", "ValueError at step 1: stuck (odd_env.py, line "),
        (
            "return None",
            "step() must return (observation, reward, terminated, truncated, info), not NoneType",
        ),
        ("return b'x', *super().step(action)[1:]", "observation of bytes; it must be text"),
        (
            "self._over = False; seen = super().step(action); return *seen[:2], False, False, seen[4]",
            "it did not end within 30 steps; max_steps is 15",
        ),
        ("return *super().step(action)[:4], {}", "an info without 'goal'"),
    ],
)
def test_an_environment_that_fails_is_named(body: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "odd_env.py").write_text(
        "import repro_rl\nfrom repro_rl.envs import SokobanEnv\n\n\n@repro_rl.register_env('odd')\n"
        f"class Odd(SokobanEnv):\n    def step(self, action):\n        {body}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "repro_rl", "play", "odd", "plugins=[odd_env]"],
        input="1\n" * 30,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words in " ".join(done.stderr.split())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_arrow_keys_of_a_terminal(tmp_path: Path) -> None:
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "repro_rl", "play", "sokoban", "--task", TASK],
        stdin=other,
        stdout=other,
        stderr=other,
        close_fds=True,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"},
    )
    os.close(other)
    out = ""
    keys = [
        ("step 0 of 15", "\x1b[B"),
        ("step 1 of 15", "\x1bOD"),
        ("step 2 of 15", "u"),
        ("step 1 of 15", "q"),
    ]
    for awaited, key in keys:
        seen = ""
        deadline = time.monotonic() + 120
        while awaited not in seen or "actions:" not in seen.partition(awaited)[2]:
            assert time.monotonic() < deadline, out + seen
            seen += os.read(main, 4096).decode("utf-8", errors="replace")
        time.sleep(0.2)  # until the program waits for the key
        os.write(main, key.encode())
        out += seen
    assert process.wait(60) == 0
    os.close(main)
    assert "Arrow keys" in out
