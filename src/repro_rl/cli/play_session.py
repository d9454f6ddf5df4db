"""A task played by arrow keys, numbered or typed actions, with undo; over a pipe by lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer
from rich.columns import Columns
from rich.text import Text

from repro_rl.cli.show import console, say, tell, visible
from repro_rl.errors import EnvError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repro_rl.envs import TextEnv

QUIT = ("q", "quit", "exit")
UNDO = ("u", "undo")
# What terminals send for the arrow keys: ANSI, application mode, Windows.
ARROWS = {
    **{f"\x1b[{letter}": name for letter, name in zip("ABCD", ("up", "down", "right", "left"), strict=True)},
    **{f"\x1bO{letter}": name for letter, name in zip("ABCD", ("up", "down", "right", "left"), strict=True)},
    **{f"\xe0{letter}": name for letter, name in zip("HPMK", ("up", "down", "right", "left"), strict=True)},
    **{f"\x00{letter}": name for letter, name in zip("HPMK", ("up", "down", "right", "left"), strict=True)},
}
INTERRUPT, END = "\x03", "\x04"  # Ctrl-C and Ctrl-D, where the terminal does not act on them itself


class Session:
    """One episode with the actions so far, so that a step can be taken back.

    ``back`` plays the episode again without its last action: an environment gives the same observations for
    the same actions.
    """

    def __init__(self, env: TextEnv, task_id: str):
        self.env, self.task_id = env, task_id
        self._start()

    def _start(self) -> None:
        from repro_rl.envs.contract import checked_reset
        from repro_rl.rollout.episode import guarded

        self.actions: list[str] = []
        self.observation, self.info = guarded(
            0, lambda: checked_reset(self.env.reset(options={"task": self.task_id}))
        )
        self.total = 0.0  # rewards so far
        self.ended = False

    def step(self, action: str) -> None:
        """Take one step. Raises EnvError for an environment that fails, breaks its contract or goes on."""
        from repro_rl.envs.contract import checked_step, overdue
        from repro_rl.rollout.episode import guarded

        self.observation, reward, terminated, truncated, self.info = guarded(
            len(self.actions) + 1, lambda: checked_step(self.env.step(action))
        )
        self.actions.append(action)
        self.total += float(reward)
        self.ended = terminated or truncated
        late = None if self.ended else overdue(self.env.max_steps, len(self.actions))
        if late is not None:
            raise EnvError(late)

    def back(self) -> bool:
        """Take the last step back; False at the start."""
        if not self.actions:
            return False
        again = self.actions[:-1]
        self._start()
        for action in again:
            self.step(action)
        return True

    def state_line(self) -> str:
        """Steps, rewards and true progress."""
        progress = self.info["progress"]
        known = "unknown" if progress is None else f"{100 * progress:.0f} %"
        note = "" if self.info["valid"] else "   (not possible)"
        steps = f"step {len(self.actions)} of {self.env.max_steps}"
        return f"{steps}   reward {self.total:g}   true progress {known}{note}"


def play_task(env: TextEnv, task_id: str, expert: bool) -> None:
    """Play one task; ``expert``: its plan chooses the actions, not the keyboard."""
    session = Session(env, task_id)
    by_key = not expert and bool(env.shortcuts) and _has_keyboard()
    tell(f"{session.info['task_id']}: {session.info['goal']}")
    if not expert:
        tell(_help(env, by_key))
    while not session.ended:
        _show(session, numbered=not expert)
        action = _expert_action(env) if expert else _chosen(session, by_key)
        if action is None:
            return
        if action in UNDO:
            if not session.back():
                say("There is no step to take back.")
        elif not expert and not _take(session, action):
            tell(f"{action or 'An empty line'}: not possible here; no step is counted.")
        elif expert:
            session.step(action)
    _show(session, numbered=False, actions=False)
    say(f"{'Solved' if session.info['won'] else 'Not solved'} after {counted(len(session.actions), 'step')}.")


def _take(session: Session, action: str) -> bool:
    """Take a person's step; False, with the step taken back, for a slip: neither listed nor possible.

    A listed action always counts, and so does any that the environment understood.
    """
    listed = action in session.info["admissible"]
    session.step(action)
    if listed or session.info["valid"]:
        return True
    session.back()
    return False


def _help(env: TextEnv, by_key: bool) -> str:
    if by_key:
        arrows = "Arrow keys, " if set(env.shortcuts.values()) & set(ARROWS.values()) else ""
        return f"{arrows}{' '.join(env.shortcuts)} or the number of an action; u takes a step back, q ends."
    return "Type an action or its number; u takes a step back, q ends."


def _show(session: Session, *, numbered: bool, actions: bool = True) -> None:
    """The state, the counters, and the possible actions."""
    tell(session.env.picture() or session.observation)
    console.print(session.state_line(), style="bold")
    if actions:
        admissible = session.info["admissible"]
        names = [f"{i} {name}" for i, name in enumerate(admissible, 1)] if numbered else admissible
        line = visible(f"actions: {', '.join(names)}")
        if not numbered or len(line) <= console.width:
            console.print(line, style="dim", soft_wrap=not console.is_terminal)
        else:  # more than a line: a table, in which a number is found at once
            shown = [Text(visible(f"{i:>3} {name}")) for i, name in enumerate(admissible, 1)]
            console.print("actions:", Columns(shown, column_first=True, padding=(0, 2)), style="dim")


def _expert_action(env: TextEnv) -> str | None:
    """What the expert does next, printed like a person's line; None when it has no plan."""
    action = env.expert()
    say("The expert sees no plan from here." if action is None else visible(f"> {action}"))
    return action


def _has_keyboard() -> bool:
    return sys.stdin.isatty() and console.is_terminal


def _chosen(session: Session, by_key: bool) -> str | None:
    """What the person does next: an action, or one of ``UNDO``; None to stop."""
    from repro_rl.envs.base import PLACEHOLDER, filled

    shortcuts, admissible = session.env.shortcuts, session.info["admissible"]
    while True:
        word = _read_key(shortcuts, len(admissible)) if by_key else _read_line()
        if word is None or word in QUIT:
            return None
        action = find_action(word, shortcuts, admissible)
        if action is not None and PLACEHOLDER.search(action):  # search[<your query>], chosen by its number
            say(visible(f"What for {action}?"))
            text = _read_line()
            return None if text is None else filled(action, text)
        if action is not None:
            return action
        say(f"There is no action {word}; the numbers go from 1 to {len(admissible)}.")


def find_action(word: str, shortcuts: Any, admissible: Sequence[str]) -> str | None:
    """The action that a person means: a shortcut, an action itself, or a number of the list, from 1.

    None for a number that is not in the list. Other text stays as it is: the environment judges it.
    """
    if word in shortcuts:
        return str(shortcuts[word])
    if word.isdecimal() and word not in admissible:
        return admissible[int(word) - 1] if 1 <= int(word) <= len(admissible) else None
    return word


def _read_line() -> str | None:
    """The next line of the keyboard or the pipe; None at its end."""
    console.print("> ", end="")
    line = sys.stdin.readline()
    if not console.is_terminal or not line:
        console.print("")  # no echo of a person's Enter ends the line
    return line.strip() if line else None


def _read_key(shortcuts: Any, count: int) -> str | None:
    """The next key that means something: an arrow's direction, a shortcut, a digit, u or q; None to stop."""
    while True:
        key = typer.getchar()
        if key in (INTERRUPT, END):
            return None
        word = ARROWS.get(key, key.lower())
        digit = word.isdecimal() and 1 <= int(word) <= count
        if digit or word in shortcuts or word in shortcuts.values() or word in (*QUIT, *UNDO):
            return word
