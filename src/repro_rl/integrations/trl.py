"""The environments for TRL's ``environment_factory``: a model acts by calling tools (docs/adapters.md).

TRL is not imported here: it takes classes as they are, and their public methods for tools.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

from repro_rl.errors import ConfigError, EnvError
from repro_rl.integrations.adapters import TRL
from repro_rl.integrations.session import open_session
from repro_rl.policy.tokens.chat_template import form_of
from repro_rl.policy.tokens.message_form import PLAIN

CALLS = "Act by calling the tools, one call at a time, until you are told that the episode is over."

log = logging.getLogger(__name__)


class ToolEnv:
    """One episode at a time. A subclass names the environment and has a public method for each tool.

    ``get_reward`` is the sum of the environment's rewards: 10 for a win by default.
    """

    env: ClassVar[str] = ""  # as ``repro_rl.make`` knows it
    split: ClassVar[str] = "train"  # of ``rows``
    settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # of the environment

    def __init__(self) -> None:
        self._session = open_session(self.env, self.settings, split=self.split, form=TRL.form)

    @classmethod
    def configured(cls, split: str = "train", **settings: Any) -> type[Self]:
        """The same class for another split and other settings of the environment."""
        return type(cls.__name__, (cls,), {"split": split, "settings": settings, "__doc__": cls.__doc__})

    @classmethod
    def rows(cls, count: int | None = None, tokenizer: Any = None) -> list[dict[str, Any]]:
        """Rows of a data set, one for each of the first ``count`` tasks of the split (None: all).

        ``prompt`` has the rules, ``task`` the task's id. ``tokenizer``: the model's, for a chat template that
        demands a system message or contents as lists of parts. TRL adds ``reset``'s text in the same form.
        Raises TaskError where there are fewer tasks, and CheckpointError for a chat template that fails.
        """
        session = open_session(cls.env, cls.settings, split=cls.split)
        panel = session.panel if count is None else session.panel.head(count)
        form = PLAIN if tokenizer is None else form_of(tokenizer)
        prompt = form.messages([{"role": "user", "content": f"{session.instructions}\n\n{CALLS}"}])
        return [{"prompt": prompt, "task": task} for task in panel]

    def reset(self, task: str | None = None, index: int | None = None, **columns: Any) -> str:
        """Begin the row's task: the text that TRL adds to the row's prompt.

        ``columns``: the row's others, not used. Raises ConfigError for a row that names no task: the rollouts
        of a group would play different ones.
        """
        if task is None and index is None:
            raise ConfigError(
                "The data set has neither a column 'task' nor 'index', so the rollouts of a group would play "
                f"different tasks; build it with {type(self).__name__}.rows()."
            )
        return f"\n\n{self._session.reset(task, index).text}"

    def get_reward(self) -> float | None:
        """The sum of the episode's rewards; None, which TRL leaves out, where the environment failed."""
        return None if self._session.last is None else self._session.total_reward

    def _play(self, action: str) -> str:
        """Play an action: the text of the tool's answer. TRL reports an error to the model as an answer."""
        session = self._session
        if session.last is not None and session.done:
            return f"The episode is over: {'won' if session.last.won else 'not won'}."
        try:
            return session.step(action).text
        except EnvError as error:
            log.warning("an episode of %s failed and gets no reward: %s", self.env, error)
            raise


class SokobanTools(ToolEnv):
    """Sokoban."""

    env = "sokoban"

    def move(self, direction: str) -> str:
        """
        Walk one cell, and push the box that stands there.

        Args:
            direction: up, down, left or right
        """
        return self._play(f"{direction}")


class ALFWorldTools(ToolEnv):
    """ALFWorld."""

    env = "alfworld"

    def act(self, command: str) -> str:
        """
        Do something in the household.

        Args:
            command: One of the possible actions, such as "go to desk 1" or "open drawer 2"
        """
        return self._play(f"{command}")


class WebShopTools(ToolEnv):
    """WebShop."""

    env = "webshop"

    def search(self, query: str) -> str:
        """
        Search for products, from the page with the search bar.

        Args:
            query: The words to search for
        """
        return self._play(f"search[{query}]")

    def click(self, name: str) -> str:
        """
        Press a button, open a product or choose an option on the current page.

        Args:
            name: What to press, such as "buy now", as it stands in the brackets of a possible action
        """
        return self._play(f"click[{name}]")


def _outcome(name: str) -> Callable[..., list[float | None]]:
    def reward(environments: Sequence[ToolEnv], **columns: Any) -> list[float | None]:
        results = [environment._session.last for environment in environments]
        values = [None if result is None else getattr(result, name) for result in results]
        return [None if value is None else float(value) for value in values]

    reward.__name__ = name  # under which TRL records it
    return reward


# Further reward functions, for GRPOTrainer(reward_funcs=[...]); with weight 0 they are only recorded. Of each
# episode: 1 if it was won, else 0; its score; the true progress at its end. None where it failed.
won, score, progress = map(_outcome, ("won", "score", "progress"))
