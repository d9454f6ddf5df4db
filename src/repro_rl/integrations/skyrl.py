"""The environments for SkyRL-Gym, and so for SkyRL's trainers (docs/adapters.md).

``skyrl_gym.make("repro_rl_sokoban", env_config=..., extras=...)`` after ``register_envs()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro_rl.envs import AlfworldEnv, SokobanEnv, WebShopEnv
from repro_rl.errors import ConfigError, did_you_mean, missing_extra
from repro_rl.integrations.adapters import SKYRL
from repro_rl.integrations.session import StepResult, open_session
from repro_rl.policy.tokens.chat_template import form_of
from repro_rl.policy.tokens.message_form import PLAIN, MessageForm, continued

try:
    import skyrl_gym
    from omegaconf import OmegaConf
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput, ConversationType
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

OPTIONS = ("settings", "split", "admissible")
ENVIRONMENTS = (SokobanEnv.name, AlfworldEnv.name, WebShopEnv.name)


def env_id(env: str) -> str:
    """The id of an environment in SkyRL-Gym, which is also the name of its section in SkyRL's settings."""
    return f"repro_rl_{env}"


def register_envs(*envs: str) -> None:
    """Register environments that ``repro_rl.make`` knows; none named: ours.

    In every process that makes one: SkyRL's workers have the ids that their own imports registered.
    """
    for env in envs or ENVIRONMENTS:
        if env_id(env) not in skyrl_gym.registry:
            skyrl_gym.register(env_id(env), "repro_rl.integrations.skyrl:SkyRLEnv", kwargs={"env": env})


def rows(
    env: str, split: str = "train", count: int | None = None, *, tokenizer: Any = None, **settings: Any
) -> list[dict[str, Any]]:
    """Rows of a data set of SkyRL's, one for each of the first ``count`` tasks (None: all).

    The prompt's user message is empty: ``init`` fills in what the episode shows. ``tokenizer``: the model's,
    for a chat template that demands a system message or contents as lists of parts.
    Raises TaskError where there are fewer tasks, and CheckpointError for a chat template that fails.
    """
    panel = open_session(env, settings, split=split).panel
    form = PLAIN if tokenizer is None else form_of(tokenizer)
    prompt = form.messages([{"role": "user", "content": ""}])
    return [
        {"data_source": panel.label(), "prompt": prompt, "env_class": env_id(env), "task": task}
        for task in (panel if count is None else panel.head(count))
    ]


class SkyRLEnv(BaseTextEnv):
    """One episode: the model answers in text, ``<action>...</action>``."""

    def __init__(self, env: str, env_config: Any = None, extras: Mapping[str, Any] | None = None):
        """``env_config``: ``settings`` of the environment, ``split``, ``admissible`` (list the possible
        actions). ``extras``, the row's columns: ``task`` or ``index``, also in ``extra_info``; ``max_turns``.

        Raises ConfigError for an unknown option, and for a row that names no task.
        """
        super().__init__()
        given = (
            OmegaConf.to_container(env_config, resolve=True)
            if OmegaConf.is_config(env_config)
            else env_config
        )
        options = {str(key): value for key, value in (given or {}).items() if key != "env_class"}
        for name in options:
            if name not in OPTIONS:
                raise ConfigError(f"{env_id(env)} has no option {name!r}{did_you_mean(name, OPTIONS)}")
        row = {**((extras or {}).get("extra_info") or {}), **(extras or {})}
        self.task, self.index = row.get("task"), row.get("index")
        if self.task is None and self.index is None:
            raise ConfigError(
                "The row has neither a column 'task' nor 'index', so the rollouts of a group would play "
                "different tasks; build the data set with repro_rl.integrations.skyrl.rows."
            )
        self.session = open_session(
            env,
            options.pop("settings", None),
            form=SKYRL.form,
            limit=int(row["max_turns"]) if row.get("max_turns") else None,
            **options,
        )
        self.max_turns = self.session.max_steps
        self.valid_turns = 0
        self.form = PLAIN  # of the contents of this episode's messages

    def init(self, prompt: ConversationType) -> tuple[ConversationType, dict[str, Any]]:
        """Begin the task: ``prompt`` with rules, goal and first observation at the end of its last turn.

        Later turns have the form of its contents: texts, or lists of parts.
        """
        self.turns = self.valid_turns = 0
        result = self.session.reset(self.task, None if self.index is None else int(self.index))
        self.form = MessageForm(parts=any(isinstance(turn["content"], list) for turn in prompt))
        *earlier, last = prompt or [{"role": "user", "content": ""}]
        if last["role"] != "user":
            earlier, last = [*earlier, last], {"role": "user", "content": self.form.content("")}
        return [*earlier, {**last, "content": continued(last["content"], result.text)}], _metadata(result)

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Play a model's answer. Raises EnvError for an environment that fails."""
        result = self.session.answer(action)
        self.turns += 1
        self.valid_turns += result.valid
        turn = [] if result.done else [{"role": "user", "content": self.form.content(result.text)}]
        return BaseTextEnvStepOutput(
            observations=turn, reward=result.reward, done=result.done, metadata=_metadata(result)
        )

    def get_metrics(self) -> dict[str, Any]:
        """Of the episode: won, score, return, progress where it is known, steps, share of valid actions."""
        last = self.session.last
        if last is None:
            return {}
        metrics = {"won": float(last.won), "score": last.score, "return": self.session.total_reward}
        if last.progress is not None:
            metrics["progress"] = last.progress
        return {**metrics, "steps": self.turns, "valid": self.valid_turns / max(self.turns, 1)}

    def close(self) -> None:
        """Release what the environment holds."""
        self.session.close()


def _metadata(result: StepResult) -> dict[str, Any]:
    names = ("task_id", "won", "truncated", "score", "progress", "valid", "action", "defects")
    return {name: getattr(result, name) for name in names}
