"""AlfworldEnv: the environment contract over games, engine and plans."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from repro_rl.envs.alfworld.engine import NOTHING, Play
from repro_rl.envs.alfworld.library import Library, Tree, library
from repro_rl.envs.alfworld.plan import commands, length, shortest
from repro_rl.envs.alfworld.real import RealPlay
from repro_rl.envs.base import TextEnv, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ConfigError, TaskError, did_you_mean

ENGINES = ("native", "textworld")
_PUT = re.compile(r"put (.+) (?:in/on|in|on) (.+)")
_RULES = (
    "You are in a household. Reach the goal that the task describes by walking between places and handling "
    "objects, one command a turn. You can hold one object at a time.\n"
    "- go to <place>, open <place>, close <place>, examine <place or held object>, look, inventory\n"
    "- take <object> from <place>, move <object> to <place>\n"
    "- heat <held object> with <microwave>, cool <held object> with <fridge>, clean <held object> with "
    "<sinkbasin>, use <lamp>, slice <object> with <held knife>\n"
    "- What is in a closed place is seen and reached only after it is opened. A command that is not possible "
    "does nothing, but costs a step."
)


@register_env("alfworld")
class AlfworldEnv(TextEnv):
    """ALFWorld, played by our own engine.

    ``data``: a folder with official games (``train``, ``valid_seen``, ``valid_unseen``, also inside
    ``json_2.1.1``); else the environment variable ALFWORLD_DATA; else generated households, of which there
    are ``games`` in the training split and a tenth of that in each other. ``seed`` is theirs. The splits
    "validation" and "test" are other names for "valid_seen" and "valid_unseen".

    Commands are the real engine's (0.4: ``move apple 1 to fridge 1``; the older form ``put apple 1 in/on
    fridge 1`` is taken as well). What is not possible prints "Nothing happens." and gives ``valid=False``,
    but costs a step. ``engine``: "native", or "textworld", the original packages (official games only, some
    hundred times slower). ``progress`` is 1 - (commands still needed) / (commands needed at the start), not
    below 0.

    Raises ConfigError for bad settings and DataError for broken games, naming the file and the fact.
    """

    name = "alfworld"
    instructions = _RULES

    def __init__(
        self,
        data: str | None = None,
        games: int = 600,
        seed: int = 0,
        max_steps: int = 50,
        engine: str = "native",
    ):
        if engine not in ENGINES:
            raise ConfigError(f"ALFWorld: engine={engine!r} is unknown{did_you_mean(str(engine), ENGINES)}")
        if max_steps < 1 or games < 10:
            raise ConfigError(f"ALFWorld: max_steps={max_steps}, games={games}; use 1 and 10 or more.")
        folder = data or os.environ.get("ALFWORLD_DATA") or None
        self._library: Library = library(None if folder is None else Path(folder), games, seed)
        if engine == "textworld" and not isinstance(self._library, Tree):
            raise ConfigError("ALFWorld: engine='textworld' plays official files only; name them with data=.")
        self.max_steps, self._engine = max_steps, engine
        self._real: RealPlay | None = None
        self._play: Play | None = None
        self._over = True

    def panel(self, split: str) -> TaskPanel:
        """The games of a split; contents are digests of the games. Raises TaskError on an unknown split."""
        return self._library.panel(split)

    def describe(self) -> str:
        """Where the games come from and how many there are."""
        return self._library.describe()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the game ``options["task"]``; without one, a random game of the training split.

        Raises TaskError on an unknown task.
        """
        super().reset(seed=seed)
        task = self.chosen_task(options, "train")
        self._play = Play(self._library.game(task))
        self._task, self._steps, self._over = task, 0, False
        self._needed = self._left()
        if self._engine == "textworld" and isinstance(self._library, Tree):
            self._real = RealPlay(self._library.path(self._task))
        return (self._real or self._play).intro(), self._info(True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One command. Bad ones never raise; a step after the end of the episode (or before reset) raises
        TaskError."""
        if self._over or self._play is None:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        command = str(action).strip()
        if old := _PUT.fullmatch(command):
            command = f"move {old[1]} to {old[2]}"
        said = self._play.act(command)
        if self._real is not None:  # the native engine runs along for progress and expert
            said = self._real.act(command)
        self._steps += 1
        info = self._info(said is not None)
        won = bool(info["won"])
        truncated = not won and self._steps >= self.max_steps
        self._over = won or truncated
        return NOTHING if said is None else said, 10.0 if won else 0.0, won, truncated, info

    def _left(self) -> int | None:
        assert self._play is not None
        plan = shortest(self._play)
        return None if plan is None else length(self._play, plan)

    def _info(self, valid: bool) -> dict[str, Any]:
        play = self._play
        assert play is not None
        left, won = self._left(), (self._real or play).won()
        needed = self._needed
        reached = None if needed is None else 0.0 if left is None else max(0.0, 1 - left / max(needed, 1))
        return {
            "task_id": self._task,
            "goal": play.game.task.removeprefix("Your task is to: "),
            "admissible": (self._real or play).admissible(),
            "anchor": hashlib.blake2b(play.state().encode(), digest_size=8).hexdigest(),
            "valid": valid,
            "won": won,
            "score": float(won),
            "progress": 1.0 if won else reached,
        }

    def expert(self) -> str | None:
        """The next command of a shortest plan; None when won, before reset, or in a dead end."""
        if self._play is None or self._over:
            return None
        plan = shortest(self._play)
        return None if plan is None else next(commands(self._play, plan), None)
