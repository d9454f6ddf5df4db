"""A taskset of verifiers over the panel of an environment, which plays the user of a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, ClassVar

import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.runtimes import SubprocessConfig

from repro_rl.envs.panel import content_digest
from repro_rl.integrations.adapters import VERIFIERS
from repro_rl.integrations.session import EpisodeSession, StepResult, open_session

EPISODE = "episode"  # key of ``trace.info``: the facts of the last step, see ``_facts``


class PanelConfig(vf.TasksetConfig):
    """Which tasks: ``--env.taskset.split``, ``--env.taskset.settings``."""

    split: str = "test"
    """Panel of the tasks."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the environment, as for `repro_rl.make`."""
    admissible: bool = True
    """Whether the model is told which actions are possible."""


class PanelData(vf.TaskData):
    """A task of a panel. ``id`` is its task id, ``prompt`` the rules and the first observation."""

    environment: str
    settings: dict[str, Any]
    admissible: bool
    panel: str  # environment, split, size and digest: what a result belongs to
    content: str  # digest of the task's content


class PanelTask(vf.Task[PanelData, vf.State, vf.TaskConfig]):
    """Scores an episode. ``--env.taskset.task.rewards.outcome.weight 1`` rewards the score as well."""

    @property
    def key(self) -> str:
        """The same for the same task in every panel: digest of environment, id and content."""
        return str(self.data.content)

    def open(self) -> EpisodeSession:
        """A session of this task's environment; close it."""
        data = self.data
        return open_session(data.environment, data.settings, form=VERIFIERS.form, admissible=data.admissible)

    async def validate(self, runtime: vf.Runtime) -> bool:
        """Whether the environment's expert wins (``vf-validate``)."""
        with closing(self.open()) as session:
            result = session.reset(self.data.id)
            while not result.done and (action := session.env.expert()) is not None:
                result = session.step(action)
            return result.won

    @vf.reward
    async def won(self, trace: vf.Trace) -> float:
        """1 for a solved task."""
        return float(_played(trace)["won"])

    @vf.reward(weight=0.0)
    async def outcome(self, trace: vf.Trace) -> dict[str, float]:
        """The score, 0..1, recorded as "score"; it counts nothing unless it is given a weight."""
        return {"score": float(_played(trace)["score"])}

    @vf.metric
    async def episode(self, trace: vf.Trace) -> dict[str, float]:
        """True progress at the end where it is known, steps, and the share of steps that did nothing."""
        facts = _played(trace)
        known = {} if facts["progress"] is None else {"progress": facts["progress"]}
        return {**known, "steps": facts["steps"], "invalid": facts["invalid"] / max(facts["steps"], 1)}


class ConversationConfig(vf.EnvConfig):
    """The one agent. Its runtime runs nothing, so it is the process itself."""

    player: vf.AgentConfig = vf.AgentConfig(runtime=SubprocessConfig())


class Conversation(vf.Env[ConversationConfig]):
    """The environment answers every action with its next observation, until the episode ends."""

    async def run(self, task: PanelTask, agents: vf.Agents) -> None:
        """One episode of ``task``."""
        with closing(task.open()) as session:
            result, invalid = session.reset(task.data.id), 0
            async with agents.player.interaction(task) as interaction:
                interaction.trace.info[EPISODE] = _facts(result, invalid)
                segment = await interaction.turn()  # the answer to the task's prompt
                while not segment.terminated:
                    result = session.answer(segment.last_reply)
                    invalid += not result.valid
                    interaction.trace.info[EPISODE] = _facts(result, invalid)
                    if result.done:
                        break
                    segment = await interaction.turn(result.text)


def _played(trace: vf.Trace) -> dict[str, Any]:
    """What ``Conversation`` noted last; a task that nobody played (``vf-validate``'s no-op check) is lost."""
    facts: dict[str, Any] = {"won": False, "score": 0.0, "progress": None, "steps": 0, "invalid": 0}
    return {**facts, **trace.info.get(EPISODE, {})}


def _facts(result: StepResult, invalid: int) -> dict[str, Any]:
    return {
        "won": result.won,
        "score": result.score,
        "progress": result.progress,
        "truncated": result.truncated,
        "steps": result.step,
        "invalid": invalid,
    }


class PanelTaskset(vf.Taskset[PanelTask, PanelConfig]):
    """All tasks of a panel, in its order. A subclass names its environment."""

    ENVIRONMENT: ClassVar[str]

    def load(self) -> Iterator[PanelTask]:
        """Each task with the prompt of its first step. Raises TaskError for an unknown split."""
        config = self.config
        session = open_session(
            self.ENVIRONMENT,
            config.settings,
            split=config.split,
            form=VERIFIERS.form,
            admissible=config.admissible,
        )
        with closing(session):
            panel = session.panel
            label = panel.label()
            for task, content in zip(panel.ids, panel.contents, strict=True):
                data = PanelData(
                    id=task,
                    name=task,
                    prompt=session.reset(task).text,
                    environment=self.ENVIRONMENT,
                    settings=config.settings,
                    admissible=config.admissible,
                    panel=label,
                    content=content_digest([panel.env, task, content]),
                )
                yield PanelTask(data, config.task)
