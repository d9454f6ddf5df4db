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

    t: Count  # from 1
    observation: Text  # before the action
    brief: Text  # short form of the observation after it
    anchor: Text  # key of the state before the action
    reached: Text | None  # of the state after it; null: unknown
    prompt: Text  # that the policy completed; empty where it was not recorded
    text: Text  # of the completion
    prompt_tokens: Count  # tokens of the prompt
    tokens: Count  # tokens of the completion
    finished: Flag  # false: cut off at the length limit
    action: Text  # sent to the environment; empty when none could be parsed
    online: Points | None  # q_t; null when absent or broken
    defects: list[Text]  # named parse defects
    valid: Flag  # the action was understood and possible
    feedback: Text  # observation after the action
    env_reward: Finite  # paid by the environment, in its reward units
    truth: Share | None  # ground-truth progress after the step, 0..1; null: unknown
    terms: dict[str, Finite | None]  # null: not finite
    advantage: Finite | None  # of the action's tokens
    entropy: Finite | None  # mean over the tokens, nats
    advice: AdviceRecord | None  # of demonstrations


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
