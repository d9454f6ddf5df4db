"""AlfworldEnv: the environment contract over games, engine and plans."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repro_rl.envs.alfworld.engine import NOTHING, VERSIONS, Play
from repro_rl.envs.alfworld.library import Library, Tree, library
from repro_rl.envs.alfworld.plan import commands, length, shortest
from repro_rl.envs.alfworld.real import RealPlay
from repro_rl.envs.alfworld.words import Words, vocabulary
from repro_rl.envs.base import TextEnv, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import ConfigError, TaskError, did_you_mean

ENGINES = ("native", "textworld")
STYLES = ("text", "words")
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
    are ``games`` in the training split and a quarter of that in each other. ``seed`` is theirs. The splits
    "validation" and "test" are other names for "valid_seen" and "valid_unseen".

    ``version``: whose words are printed and listed, ALFWorld's since "0.4" (``move apple 1 to fridge 1``,
    ``You arrive at fridge 1.``) or those of "0.3" and before, which the papers' prompts show (``put apple 1
    in/on fridge 1``, ``You arrive at loc 7.``). Both forms are taken in both. What is not possible prints
    "Nothing happens." and gives ``valid=False``, but costs a step. ``engine``: "native", or "textworld", the
    original packages (files only, some hundred times slower). ``style``: "text" (the game's own), or "words"
    (for tiny models, ``words.py``). ``progress`` is 1 - (commands still needed) / (commands needed at the
    start), not below 0.

    Raises ConfigError for bad settings and DataError for broken games, naming the file and the fact.
    """

    name = "alfworld"
    instructions = _RULES

    def __init__(
        self,
        data: str | None = None,
        games: int = 2000,
        seed: int = 0,
        max_steps: int = 50,
        engine: str = "native",
        style: str = "text",
        version: str | float = VERSIONS[0],
    ):
        if str(version) not in VERSIONS:
            raise ConfigError(
                f"ALFWorld: version={version!r} is unknown{did_you_mean(str(version), VERSIONS)}"
            )
        if style not in STYLES:
            raise ConfigError(f"ALFWorld: style={style!r} is unknown{did_you_mean(str(style), STYLES)}")
        if engine not in ENGINES:
            raise ConfigError(f"ALFWorld: engine={engine!r} is unknown{did_you_mean(str(engine), ENGINES)}")
        if max_steps < 1 or games < 10:
            raise ConfigError(f"ALFWorld: max_steps={max_steps}, games={games}; use 1 and 10 or more.")
        folder = data or os.environ.get("ALFWORLD_DATA") or None
        self._library: Library = library(None if folder is None else Path(folder), games, seed)
        if engine == "textworld" and not isinstance(self._library, Tree):
            raise ConfigError("ALFWorld: engine='textworld' plays files only; name them with data=.")
        if engine == "textworld" and str(version) != VERSIONS[0]:
            raise ConfigError(
                f"ALFWorld: engine='textworld' speaks version {VERSIONS[0]} only; for {version} use "
                "engine='native'."
            )
        self.max_steps, self._engine, self.style, self.version = max_steps, engine, style, str(version)
        if self.version == "0.3":
            self.instructions = _RULES.replace("move <object> to <place>", "put <object> in/on <place>")
        self._real: RealPlay | None = None
        self._play: Play | None = None
        self._words: Words | None = None
        self._over = True

    def panel(self, split: str) -> TaskPanel:
        """The games of a split; contents are digests of the games. Raises TaskError on an unknown split."""
        return self._library.panel(split)

    def describe(self) -> str:
        """Where the games come from, how many there are, and whose words are printed."""
        return f"{self._library.describe()}; words of ALFWorld {self.version}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the game ``options["task"]``; without one, a random game of the training split.

        Raises TaskError on an unknown task.
        """
        super().reset(seed=seed)
        task = self.chosen_task(options, "train")
        self._play = Play(self._library.game(task), self.version)
        self._task, self._steps, self._over = task, 0, False
        self._needed = self._ahead(self._anchor())[0]
        if self._engine == "textworld" and isinstance(self._library, Tree):
            self._real = RealPlay(self._library.path(self._task))
        self._words = Words(self._play) if self.style == "words" else None
        observation, brief = self._observe((self._real or self._play).intro())
        return observation, self._info(True, brief)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One command. Bad ones never raise; a step after the end of the episode (or before reset) raises
        TaskError."""
        if self._over or self._play is None:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        command = str(action).strip()
        if self._words is not None:
            command = self._words.real(command)
        command = self._play.understood(command)
        move = self._play.moves().get(command)
        said = self._play.act(command)
        if self._words is not None:
            self._words.note(move)
        if self._real is not None:  # the native engine runs along for progress and expert
            said = self._real.act(command)
        self._steps += 1
        observation, brief = self._observe(NOTHING if said is None else said)
        info = self._info(said is not None, brief)
        won = bool(info["won"])
        truncated = not won and self._steps >= self.max_steps
        self._over = won or truncated
        return observation, 10.0 if won else 0.0, won, truncated, info

    def _observe(self, said: str) -> tuple[str, str]:
        return (said, said) if self._words is None else self._words.observe()

    def _ahead(self, state: str) -> tuple[int | None, str | None]:
        """(Commands still needed, the next one), None in a dead end and when won. The rollouts of a task meet
        the same states again; each is planned once."""
        assert self._play is not None
        plans = self._play.game.plans
        if state not in plans:
            plan = shortest(self._play)
            plans[state] = (
                (None, None)
                if plan is None
                else (length(self._play, plan), next(commands(self._play, plan), None))
            )
        return plans[state]

    def _anchor(self) -> str:
        assert self._play is not None
        return hashlib.blake2b(self._play.state().encode(), digest_size=8).hexdigest()

    def _info(self, valid: bool, brief: str) -> dict[str, Any]:
        play = self._play
        assert play is not None
        anchor = self._anchor()
        left, won = self._ahead(anchor)[0], (self._real or play).won()
        needed = self._needed
        reached = None if needed is None else 0.0 if left is None else max(0.0, 1 - left / max(needed, 1))
        return {
            "task_id": self._task,
            "goal": play.game.task.removeprefix("Your task is to: "),
            "admissible": (self._words or self._real or play).admissible(),
            "anchor": anchor,
            "valid": valid,
            "won": won,
            "score": float(won),
            "progress": 1.0 if won else reached,
            "brief": brief,
        }

    def expert(self) -> str | None:
        """The next command of a shortest plan; None when won, before reset, or in a dead end."""
        if self._play is None or self._over:
            return None
        command = self._ahead(self._anchor())[1]
        if command is None:
            return None
        command = self._play.understood(command)  # plans are kept with the game, for both versions
        return command if self._words is None else self._words.short(command)

    def task_type(self, task_id: str) -> str | None:
        """The type in the task folder's name, such as "pick_and_place_simple"; None where there is none."""
        parts = task_id.split("/")
        return parts[-2].partition("-")[0] if len(parts) == 3 and "-" in parts[-2] else None

    def vocabulary(self) -> Iterable[str]:
        """Every word of the ``words`` style; of the game's own texts, only what demonstrations hold."""
        return vocabulary() if self.style == "words" else ()
