"""SokobanEnv: the environment contract over rooms, solver and text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from repro_rl.envs.base import TextEnv, read_settings, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.sokoban import text
from repro_rl.envs.sokoban.board import ACTIONS, Room, move, render_xsb
from repro_rl.envs.sokoban.generator import SPLITS, room_source
from repro_rl.envs.sokoban.levels import LevelSet, read_level_set
from repro_rl.envs.sokoban.settings import RoomSettings, SokobanSettings
from repro_rl.envs.sokoban.solver import best_move, distances
from repro_rl.errors import TaskError, did_you_mean

GOAL = "Push every box onto a target."
NOTHING = "Nothing happened."
_DIRECTIONS = {action: i for i, action in enumerate(ACTIONS)}
_PANELS: dict[tuple[str, RoomSettings, str, int], TaskPanel] = {}  # by name: subclasses have their own


@register_env("sokoban")
class SokobanEnv(TextEnv):
    """Sokoban in text. ``SokobanSettings`` describes the settings.

    Rooms come from a seeded generator, or from a level file or folder.

    An action is one of up, down, left, right (any case, surrounding space allowed). Anything else, and a move
    that a wall or a blocked box stops, changes nothing and gives ``valid=False``, but costs a step. ``score``
    is the share of boxes on targets. ``progress`` is 1 - (moves still needed) / (moves needed at the start),
    not below 0. It is 1 when solved, and 0 in a state that cannot be solved any more. It is None where the
    solver runs out of nodes, and so is ``expert()``; that happens only in rooms with more than
    ``solver.TABLE_LIMIT`` states.

    Raises ConfigError for settings that contradict each other and DataError for a broken level file.
    """

    name = "sokoban"
    example_action = "up"
    settings_schema = SokobanSettings
    free_settings = frozenset(
        {
            *("rows", "cols", "boxes", "walls", "solution", "seed", "levels", "max_steps", "reward"),
            *("train_rooms", "validation_rooms", "test_rooms"),
        }
    )
    for_people = MappingProxyType({"style": "grid"})
    for_models = MappingProxyType({"style": "grid"})
    shortcuts = MappingProxyType({"w": "up", "s": "down", "a": "left", "d": "right"})

    def __init__(self, **settings: Any):
        self.settings = chosen = read_settings("Sokoban", SokobanSettings, settings)
        self.max_steps = chosen.max_steps
        self.instructions = text.instructions(chosen.style, chosen.encoding)
        self._generated = chosen.rooms
        self._levels: LevelSet | None = None
        if chosen.levels is not None:
            self._levels = read_level_set(chosen.levels)
            self._counts = {split: len(rooms) for split, rooms in self._levels.splits.items()}
            self.set_name = self._levels.name
        else:
            counts = (chosen.train_rooms, chosen.validation_rooms, chosen.test_rooms)
            self._counts = dict(zip(SPLITS, counts, strict=True))
            self.set_name = self._generated.name
        self._room: Room | None = None
        self._over = True

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, as ``panel`` takes them."""
        return tuple(self._counts)

    def panel(self, split: str) -> TaskPanel:
        """The tasks of a split; contents are the rooms in XSB symbols. Raises TaskError on an unknown
        split."""
        self._check_split(split)
        count = self._counts[split]
        key = (self.name, self._generated, split, count) if self._levels is None else None
        panel = _PANELS.get(key) if key else None
        if panel is None:
            ids = tuple(f"{self.set_name}/{split}/{i}" for i in range(count))
            panel = TaskPanel(
                self.name, split, ids, tuple(self._room_of(split, i).text for i in range(count))
            )
            if key:
                _PANELS[key] = panel
        return panel

    def room(self, task_id: str) -> Room:
        """The room of a task. Raises TaskError on an unknown id."""
        parts = task_id.rsplit("/", 2) if isinstance(task_id, str) else []
        if len(parts) != 3 or parts[0] != self.set_name:
            raise TaskError(
                f"Sokoban has no task {task_id!r} here; ids look like {self.set_name}/{self.splits[0]}/0 "
                f"(another first part belongs to other settings or another level set)."
            )
        _, split, number = parts
        self._check_split(split)
        if (
            not (number.isascii() and number.isdigit())
            or len(number) > 9
            or int(number) >= self._counts[split]
        ):
            raise TaskError(
                f"Sokoban task {task_id!r}: number {number!r} is not within 0..{self._counts[split] - 1} of "
                f"{split}."
            )
        return self._room_of(split, int(number))

    def _room_of(self, split: str, number: int) -> Room:
        if self._levels is not None:
            return self._levels.splits[split][number]
        return room_source(self._generated).room(split, number)

    def _check_split(self, split: str) -> None:
        if split not in self._counts:
            raise TaskError(f"{self.set_name} has no split {split!r}{did_you_mean(str(split), self._counts)}")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start the task ``options["task"]``; without one, a random task of the first split that has any.

        Raises TaskError on an unknown task.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            split = next((split for split, count in self._counts.items() if count), None)
            if split is None:
                raise TaskError(
                    f"{self.set_name} has no rooms; set train_rooms, validation_rooms or test_rooms above 0."
                )
            task = f"{self.set_name}/{split}/{int(self.np_random.integers(self._counts[split]))}"
        room = self.room(task)
        self._task, self._room = task, room
        self._player, self._boxes = room.player, room.boxes
        self._targets = room.layout.targets
        self._render = text.renderer(room.layout, self.settings.style, self.settings.encoding)
        self._distances = distances(room.layout)
        self._start_distance = self._distances(room.player, room.boxes)
        self._steps, self._over = 0, False
        observation, brief = self._render(self._player, self._boxes)
        return observation, self._info(True, brief)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One move. Bad actions never raise; a step after the end of the episode (or before reset) raises
        TaskError."""
        if self._over or self._room is None:
            raise TaskError("The episode is over (or has not begun); call reset before step.")
        direction = _DIRECTIONS.get(action) if isinstance(action, str) else None
        if direction is None and isinstance(action, str):
            direction = _DIRECTIONS.get(action.strip().lower())
        after = None if direction is None else move(self._room.layout, self._player, self._boxes, direction)
        self._steps += 1
        reward = -0.1 if self.settings.reward == "gym" else 0.0
        if after is not None:
            if self.settings.reward == "gym" and after[1] is not self._boxes:
                reward += self._on_target(after[1]) - self._on_target(self._boxes)
            self._player, self._boxes = after
        won = self._boxes == self._targets
        truncated = not won and self._steps >= self.max_steps
        self._over = won or truncated
        if won:
            reward += 10.0
        observation, brief = self._render(self._player, self._boxes)
        if after is None and self.settings.style != "relative":
            observation = f"{NOTHING}\n{observation}"
        return observation, reward, won, truncated, self._info(after is not None, brief)

    def picture(self) -> str | None:
        """The board, two characters a cell (see ``text.PICTURE``); None before the first reset."""
        if self._room is None:
            return None
        return text.picture(render_xsb(self._room.layout, self._player, self._boxes))

    def _on_target(self, boxes: tuple[int, ...]) -> int:
        return sum(box in self._targets for box in boxes)

    def _info(self, valid: bool, brief: str) -> dict[str, Any]:
        player, boxes = self._player, self._boxes
        assert self._room is not None
        layout = self._room.layout
        admissible = []
        for action, row in zip(ACTIONS, layout.moves, strict=True):
            to = row[player]
            if to >= 0 and (to not in boxes or (row[to] >= 0 and row[to] not in boxes)):
                admissible.append(action)
        return {
            "task_id": self._task,
            "goal": GOAL,
            "admissible": admissible,
            "anchor": f"{player}:{','.join(map(str, boxes))}",
            "valid": valid,
            "won": boxes == self._targets,
            "score": self._on_target(boxes) / len(boxes),
            "progress": self._progress(),
            "brief": brief,
        }

    def _progress(self) -> float | None:
        if self._boxes == self._targets:
            return 1.0
        start, here = self._start_distance, self._distances(self._player, self._boxes)
        if start == math.inf or here == math.inf:
            return 0.0
        if start is None or here is None:
            return None
        return max(0.0, 1.0 - here / start)

    def expert(self) -> str | None:
        """The next move of a shortest plan; None when solved, not solvable, before reset, or when the solver
        runs out of nodes."""
        if self._room is None:
            return None
        return best_move(self._room.layout, self._distances, self._player, self._boxes)

    def vocabulary(self) -> Iterable[str]:
        """Every word of the style with these settings, and the four actions. See ``text.vocabulary``."""
        if self._levels is None:
            rows, cols = self._generated.rows, self._generated.cols
        else:
            layouts = [room.layout for rooms in self._levels.splits.values() for room in rooms]
            rows, cols = max(item.rows for item in layouts), max(item.cols for item in layouts)
        return text.vocabulary(rows, cols, self.settings.style, self.settings.encoding)
