"""The environments under gymnasium's ids: ``gymnasium.make("repro_rl/Sokoban-v0")`` (docs/adapters.md)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium

from repro_rl.envs.base import filled
from repro_rl.envs.text_space import LONGEST_ACTION, LONGEST_OBSERVATION, AnyText
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.gymnasium_ids import register
from repro_rl.integrations.adapters import GYMNASIUM
from repro_rl.integrations.session import open_session

OPTIONS = tuple(name for name in GYMNASIUM.picks if name != "seed")  # gymnasium has its own seed

register()


class Actions(AnyText):
    """Every text is an action; ``sample`` draws one of those that were possible when it was last told."""

    choices: tuple[str, ...] = ()
    goal: str = ""

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """One of ``choices``, the goal in place of free text; any text where there are none.

        ``mask`` and ``probability`` are those of ``gymnasium.spaces.Text``.
        """
        if not self.choices or mask is not None or probability is not None:
            return str(super().sample(mask, probability))
        choice = self.choices[int(self.np_random.integers(len(self.choices)))]
        return filled(choice, self.goal)


class GymEnv(gymnasium.Env[str, str]):
    """A text environment with random tasks of a split, drawn by gymnasium's seed.

    ``reset(options={"task": id})`` or ``{"index": position}`` chooses the task, ``{"split": name}`` another
    panel. ``info`` has the keys of ``StepInfo`` (docs/environment-contract.md). ``render`` (mode "ansi")
    shows the board of Sokoban, the room of ALFWorld, the page of WebShop.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 4}

    def __init__(self, env: str, *, split: str = "train", render_mode: str | None = None, **settings: Any):
        """``settings``: those of ``repro_rl.make(env)``.

        Raises ConfigError for unknown settings or another render mode, DataError for broken data.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f'render_mode is {render_mode!r}; it must be "ansi" or None.')
        self.session = open_session(env, settings, split=split, form=GYMNASIUM.form)
        self.render_mode = render_mode
        self.observation_space = AnyText(LONGEST_OBSERVATION)
        self.action_space: Actions = Actions(LONGEST_ACTION)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Begin a task. Raises ConfigError for an unknown option, TaskError for an unknown task."""
        super().reset(seed=seed)
        chosen = dict(options or {})
        for name in chosen:
            if name not in OPTIONS:
                raise ConfigError(f"reset has no option {name!r}{did_you_mean(name, OPTIONS)}")
        if chosen.get("task") is None and chosen.get("index") is None:
            chosen["index"] = self._random_index(chosen.get("split"))
        result = self.session.reset(**chosen)
        return result.observation, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play ``action``; see ``TextEnv.step``. Raises TaskError when no episode is under way."""
        result = self.session.step(action)
        ended = result.done and not result.truncated
        return result.observation, result.reward, ended, result.truncated, self._info()

    def render(self) -> str | None:  # type: ignore[override]  # gymnasium: also frames
        """The current state as text for people; None without a render mode, and before the first reset."""
        last = self.session.last
        if self.render_mode is None or last is None:
            return None
        picture = self.session.env.picture()
        return last.observation if picture is None else picture

    def close(self) -> None:
        """Release what the environment holds; a second call does nothing."""
        self.session.close()

    def _random_index(self, split: str | None) -> int:
        panel = self.session.panel_of(split)
        return int(self.np_random.integers(len(panel)))

    def _info(self) -> dict[str, Any]:
        info = self.session.info
        self.action_space.choices, self.action_space.goal = tuple(info["admissible"]), info["goal"]
        return {**info, "admissible": list(info["admissible"])}  # nobody changes the environment's own
