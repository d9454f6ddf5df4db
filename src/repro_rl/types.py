"""The records that flow through the package, left to right: Step, Trajectory, Reflection, Group, Sample.

Progress is an integer percentage 0..100. ``P_0 = 0`` before any action; ``P_t`` is the progress *after* step
t, t = 1..T; the gain of step t is ``P_t - P_{t-1}`` (METHOD: our convention).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = tuple[int, ...]


@dataclass(slots=True)
class Completion:
    """One generated text, kept as the token ids that were sampled. It is never re-tokenised."""

    prompt_ids: Ids  # [P]; in a conversation those that its turn added
    token_ids: Ids  # [N], the end-of-text token included when it was sampled
    logprobs: NDArray[
        np.float32
    ]  # [N], of the sampled ids; full distribution at the temperature, before top-p
    text: str  # decoded, without the end-of-text token
    finished: bool  # False: the length limit cut it off
    entropy: float = 0.0  # mean over the N tokens, nats
    counted: tuple[int, int] | None = None  # prompt and completion tokens by a server's count; no ids then
    error: str | None = None  # a server gave no completion at all

    @property
    def prompt_tokens(self) -> int:
        return self.counted[0] if self.counted else len(self.prompt_ids)

    @property
    def tokens(self) -> int:
        return self.counted[1] if self.counted else len(self.token_ids)


def no_completion() -> Completion:
    """Stands where no policy was asked: in demonstrations, and in records, which keep no token ids."""
    return Completion((), (), np.zeros(0, np.float32), "", True)


@dataclass(slots=True)
class Step:
    """One environment step of an episode."""

    t: int  # 1-based
    observation: str  # what the agent saw before acting
    brief: str  # a short form of the observation *after* the action, for compact reflection prompts
    anchor: Hashable  # key of the state before acting, for step groups
    prompt: str  # text put to the policy
    completion: Completion
    action: str  # what was sent to the environment ("" when none could be parsed)
    online: int | None  # q_t, 0..100; None when absent or broken
    defects: tuple[str, ...]  # named parse defects of the completion
    valid: bool  # the environment understood the action and it was possible
    env_reward: float
    truth: float | None  # ground-truth progress after the step, 0..1
    feedback: str = ""  # what the environment printed after the action
    shortened: str = ""  # what its prompt lost to fit the limit: "history" or "observation"; "" nothing
    reached: Hashable | None = None  # key of the state after acting, as ``anchor``; None: not known
    terms: dict[str, float] = field(default_factory=dict)  # composite reward, each term apart
    advantage: float = 0.0


@dataclass(slots=True)
class Reflection:
    """The policy's own judgement of a finished episode."""

    prompt: str
    completion: Completion
    values: tuple[int, ...] | None  # P_1..P_T; None when the text gave no T valid values
    defects: tuple[str, ...]
    terms: dict[str, float] = field(default_factory=dict)
    advantage: float = 0.0
    shortened: bool = False  # observations were shortened so that the prompt fits


@dataclass(slots=True)
class Trajectory:
    """One episode: T steps, its outcome, and the reflection on it."""

    task_id: str
    rollout: int  # names the random stream with task_id; numbered through the iteration in training
    goal: str
    steps: list[Step]
    won: bool
    score: float  # 0..1
    truncated: bool
    final_observation: str = ""
    reflection: Reflection | None = None
    error: str | None = None  # an environment failure is data, not a crash
    context_full: bool = False  # chat mode: ended because the conversation had no room for another turn

    @property
    def length(self) -> int:
        return len(self.steps)

    @property
    def env_return(self) -> float:
        return sum(step.env_reward for step in self.steps)


@dataclass(slots=True)
class Group:
    """The G rollouts of one task."""

    task_id: str
    trajectories: list[Trajectory]


@dataclass(slots=True)
class Sample:
    """A token sequence to train on. One prompt per step and one sequence per trajectory are the same type."""

    ids: NDArray[np.int64]  # [L]
    trained: NDArray[np.bool_]  # [L], True where the token was sampled by the policy and is trained on
    advantage: NDArray[np.float32]  # [L], 0 where not trained
    logprob: NDArray[np.float32]  # [L], sampled log-prob, 0 where not trained
    kind: str  # "forward" | "reflect"
    group: int  # index of the task group, mini-batches are split by it
    # [L], True for the tokens of a reflection inside a "forward" sample (a packed conversation)
    reflected: NDArray[np.bool_] | None = None
