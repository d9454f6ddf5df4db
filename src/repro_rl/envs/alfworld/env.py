"""AlfworldEnv: the environment contract over games, engine and plans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repro_rl.envs.alfworld.engine import NOTHING, Play
from repro_rl.envs.alfworld.explorer import Explorer
from repro_rl.envs.alfworld.planner import commands, length, shortest
from repro_rl.envs.alfworld.real import RealPlay
from repro_rl.envs.alfworld.settings import AlfworldSettings
from repro_rl.envs.alfworld.sources import GameFolder, GameSource, game_source
from repro_rl.envs.alfworld.words import Words, vocabulary
from repro_rl.envs.base import TextEnv, read_settings, register_env
from repro_rl.envs.instructions import read_instructions
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import TaskError


@register_env("alfworld")
class AlfworldEnv(TextEnv):
    """ALFWorld, played by the native engine.

    ``AlfworldSettings`` describes the settings. The splits "validation" and "test" are aliases of
    "valid_seen" and "valid_unseen".

    Texts of version 0.4: ``move apple 1 to fridge 1``, ``You arrive at fridge 1.``; of version 0.3: ``put
    apple 1 in/on fridge 1``, ``You arrive at loc 7.`` Both forms of the command are accepted in both. An
    impossible command prints "Nothing happens." and gives ``valid=False``, but costs a step. ``progress`` is
    1 - (commands still needed) / (commands needed at the start), not below 0. ``source`` has the games;
    ``play`` and ``words`` the current episode.

    Raises ConfigError for bad settings and DataError for broken games, naming the file and the fact.
    """

    name = "alfworld"
    example_action = "look"
    settings_schema = AlfworldSettings
    free_settings = frozenset({"data", "engine", "games", "seed", "max_steps"})

    def __init__(self, **settings: Any):
        self.settings = chosen = read_settings("ALFWorld", AlfworldSettings, settings)
        self.source: GameSource = game_source(chosen.folder, chosen.games, chosen.seed)
        self.max_steps = chosen.max_steps
        self.instructions = read_instructions(Path(__file__).parent).rules
        if chosen.version == "0.3":
            put_command = "put <object> in/on <place>"
            self.instructions = self.instructions.replace("move <object> to <place>", put_command)
        self._real: RealPlay | None = None
        self.play: Play | None = None
        self.words: Words | None = None
        self._over = True
        self._texts: list[str] = []  # printed in this episode
        self._explorer = Explorer()
        self._read = 0  # how many of the texts the explorer has read

    def panel(self, split: str) -> TaskPanel:
        """The games of a split; contents are digests of the games. Raises TaskError on an unknown split."""
        return self.source.panel(split)

    def describe(self) -> str:
        """Where the games come from, how many there are, and the ALFWorld version."""
        return f"{self.source.describe()}; words of ALFWorld {self.settings.version}"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the game ``options["task"]``; without one, a random game of the training split.

        Raises TaskError on an unknown task.
        """
        super().reset(seed=seed)
        task = self.chosen_task(options, "train")
        self.play = Play(self.source.game(task), self.settings.version)
        self._task, self._steps, self._over = task, 0, False
        self._commands_at_start = self._plan(self._anchor())[0]
        if self.settings.engine == "textworld" and isinstance(self.source, GameFolder):
            self._real = RealPlay(self.source.path(self._task))
        self.words = Words(self.play) if self.settings.style == "words" else None
        intro = (self._real or self.play).intro()
        self._texts, self._explorer, self._read = [intro], Explorer(), 0
        observation, brief = self._observe(intro)
        return observation, self._info(True, brief)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One command. Bad ones never raise; a step after the end of the episode (or before reset) raises
        TaskError."""
        if self._over or self.play is None:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        command = str(action).strip()
        if self.words is not None:
            command = self.words.full_command(command)
        command = self.play.normalized(command)
        parsed = self.play.possible_commands().get(command)
        feedback = self.play.act(command)
        if self.words is not None:
            self.words.update(parsed)
        if self._real is not None:  # the native engine runs in parallel, for progress and expert
            feedback = self._real.act(command)
        self._steps += 1
        text = NOTHING if feedback is None else feedback
        self._texts.append(text)
        observation, brief = self._observe(text)
        info = self._info(feedback is not None, brief)
        won = bool(info["won"])
        truncated = not won and self._steps >= self.max_steps
        self._over = won or truncated
        return observation, 10.0 if won else 0.0, won, truncated, info

    def _observe(self, feedback: str) -> tuple[str, str]:
        return (feedback, feedback) if self.words is None else self.words.observe()

    def _plan(self, state: str) -> tuple[int | None, str | None]:
        """(commands still needed, next command); None in a dead end and when won.

        Cached with the game, because the rollouts of a task reach the same states again.
        """
        assert self.play is not None
        plans = self.play.game.plans
        if state not in plans:
            plan = shortest(self.play)
            plans[state] = (
                (None, None)
                if plan is None
                else (length(self.play, plan), next(commands(self.play, plan), None))
            )
        return plans[state]

    def _anchor(self) -> str:
        assert self.play is not None
        return hashlib.blake2b(self.play.state().encode(), digest_size=8).hexdigest()

    def _info(self, valid: bool, brief: str) -> dict[str, Any]:
        play = self.play
        assert play is not None
        anchor = self._anchor()
        left, won = self._plan(anchor)[0], (self._real or play).won()
        total = self._commands_at_start
        progress = None if total is None else 0.0 if left is None else max(0.0, 1 - left / max(total, 1))
        return {
            "task_id": self._task,
            "goal": play.game.task.removeprefix("Your task is to: "),
            "admissible": (self.words or self._real or play).admissible(),
            "anchor": anchor,
            "valid": valid,
            "won": won,
            "score": float(won),
            "progress": 1.0 if won else progress,
            "brief": brief,
        }

    def picture(self) -> str | None:
        """The room: task, where the agent is and what is there, what it carries; None before reset."""
        return None if self.play is None else self.play.room()

    def expert(self) -> str | None:
        """The next command of a shortest plan; None when won, before reset, or in a dead end."""
        if self.play is None or self._over:
            return None
        command = self._plan(self._anchor())[1]
        if command is None:
            return None
        command = self.play.normalized(command)  # cached plans serve both versions
        return command if self.words is None else self.words.short_name(command)

    def reader(self, seed: int = 0) -> str | None:
        """The next command of an expert that knows the texts of this episode alone (``explorer``).

        None when the episode is over, and for a task whose sentence it cannot read.
        """
        if self.play is None or self._over:
            return None
        if self._explorer.seed != seed:
            self._explorer, self._read = Explorer(seed), 0
        for text in self._texts[self._read :]:
            self._explorer.read(text)
        self._read = len(self._texts)
        command = self._explorer.next(self.play.admissible())
        if command is None:
            return None
        command = self.play.normalized(command)
        return command if self.words is None else self.words.short_name(command)

    def task_type(self, task_id: str) -> str | None:
        """The type in the task folder's name, such as "pick_and_place_simple"; None where there is none."""
        parts = task_id.split("/")
        return parts[-2].partition("-")[0] if len(parts) == 3 and "-" in parts[-2] else None

    def vocabulary(self) -> Iterable[str]:
        """Every word of the ``words`` style; empty for ``text``, whose words come from the demonstrations."""
        return vocabulary() if self.settings.style == "words" else ()
