"""What the fields of a trajectory record may hold.

Records of older versions lack some of them; later ones may have more.
"""

from __future__ import annotations

from typing import NotRequired, Required

from typing_extensions import TypedDict

from repro_rl.files.records import Count, Finite, Flag, Points, Share, Text
from repro_rl.types import Status


class AdviceRecord(TypedDict):
    """Of demonstrations: the expert's answer in the state of a step."""

    action: Text
    truth: NotRequired[Share | None]
    online: NotRequired[Points | None]


class StepRecord(TypedDict, total=False):
    """One step of an episode."""

    t: Count
    observation: Text
    brief: Text
    anchor: Text
    reached: Text | None
    prompt: Text
    text: Text
    prompt_tokens: Count
    tokens: Count
    finished: Flag
    action: Text
    online: Points | None
    defects: list[Text]
    valid: Flag
    feedback: Text
    env_reward: Finite
    truth: Share | None
    terms: dict[str, Finite | None]  # null: not finite
    advantage: Finite | None
    entropy: Finite | None
    advice: AdviceRecord | None


class ReflectionRecord(TypedDict, total=False):
    """The judgement of a finished episode."""

    prompt: Text
    text: Text
    prompt_tokens: Count
    tokens: Count
    finished: Flag
    values: list[Points] | None
    defects: list[Text]
    terms: dict[str, Finite | None]
    advantage: Finite | None


class TrajectoryRecord(TypedDict, total=False):
    """One episode, as any reader takes it."""

    iteration: Count
    task_id: Text
    rollout: Count
    goal: Text
    won: Flag
    score: Finite
    status: Status
    truncated: Flag
    context_full: Flag
    error: Text | None
    final_observation: Text
    steps: Required[list[StepRecord]]
    reflection: ReflectionRecord | None
