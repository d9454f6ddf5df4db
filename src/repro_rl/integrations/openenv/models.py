"""What goes over the wire between an OpenEnv server of ours and its clients."""

from __future__ import annotations

from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

from repro_rl.settings import Section


class TextAction(Action):
    """One action."""

    command: str = Field(description='the action in the words of the environment, such as "open fridge 1"')


class TextObservation(Observation):
    """What the agent may see. ``reward`` is 0 until the episode ends, then the score of the outcome, 0..1."""

    text: str = Field("", description="the observation")
    goal: str = Field("", description="the task in one sentence")
    admissible: list[str] = Field(default_factory=list, description="actions that are possible now")
    valid: bool = Field(True, description="the last action was understood and possible")
    instructions: str = Field("", description="the rules; only after a reset")


class TextState(State):
    """What the agent must not see: the outcome and the true progress."""

    task_id: str | None = Field(None, description="the task; None before the first reset")
    won: bool = Field(False, description="the task is solved")
    truncated: bool = Field(False, description="the episode ended for want of steps")
    score: float = Field(0.0, description="of the outcome, 0..1")
    progress: float | None = Field(None, description="true progress, 0..1; None where it is not known")


class TaskChoice(Section):
    """What ``reset`` takes besides ``seed`` and ``episode_id``. Without index and task, one is drawn."""

    split: str | None = Field(None, description="panel of the task; by default the server's")
    index: int | None = Field(None, ge=0, description="position in the panel")
    task: str | None = Field(None, description="task id, in place of split and index")
