"""The records of episodes and samples: Completion, Step, Reflection, Trajectory, Group and Sample.

Progress is an integer percentage 0..100 (decision D1). ``P_0 = 0`` before any action. ``P_t`` is the progress
*after* step t, t = 1..T. The gain of step t is ``P_t - P_{t-1}``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = tuple[int, ...]
LOG_PROB_ROUNDING = 1e-3  # how far above 0 the rounding of a model may take a log-prob


@dataclass(slots=True)
class Completion:
    """One generated text, with the token ids that were sampled. It is never tokenised again."""

    prompt_ids: Ids  # [P]; in a conversation those that its turn added
    token_ids: Ids  # [N], the end-of-text token included when it was sampled
    logprobs: NDArray[np.float32]  # [N], of token_ids; full distribution at the temperature, before top-p
    text: str  # decoded, without the end-of-text token
    finished: bool  # False: cut off at the length limit
    entropy: float = 0.0  # mean over the N tokens, nats
    counted: tuple[int, int] | None = None  # prompt and completion tokens, where ids are not available
    error: str | None = None  # why a server gave no completion at all
    # [N], the ids that each token was drawn from, of which log-probs and entropy are; a token with one such
    # id was given, not sampled. None: free text, drawn from the whole vocabulary.
    allowed: tuple[Ids, ...] | None = None
    # [N] each, log-probs of token_ids under another model or prompt, by name, where a method needs them.
    scored: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """P, also where a server counted tokens without giving their ids."""
        return self.counted[0] if self.counted else len(self.prompt_ids)

    @property
    def tokens(self) -> int:
        """N, also where a server counted tokens without giving their ids."""
        return self.counted[1] if self.counted else len(self.token_ids)

    @property
    def sampled(self) -> int:
        """Tokens that were sampled: all N of them, but for a guided answer."""
        return self.tokens if self.allowed is None else sum(len(ids) > 1 for ids in self.allowed)


def no_completion() -> Completion:
    """An empty completion: for demonstrations, and for records, which keep no token ids."""
    return Completion((), (), np.zeros(0, np.float32), "", True)


@dataclass(slots=True)
class Advice:
    """Of demonstrations: the expert's answer in the state of a step, whichever action was executed there."""

    action: str  # "" where the expert had none
    truth: float | None = None  # ground-truth progress after it, 0..1
    online: int | None = None  # its labelled progress, 0..100


@dataclass(slots=True)
class Step:
    """One environment step of an episode."""

    t: int  # 1-based
    observation: str  # what the agent saw before acting
    brief: str  # a short form of the observation *after* the action, for compact reflection prompts
    anchor: Hashable  # key of the state before acting, for step groups
    prompt: str  # the text that the policy completed
    completion: Completion  # what the policy answered
    action: str  # what was sent to the environment ("" when none could be parsed)
    online: int | None  # q_t, 0..100; None when absent or broken
    defects: tuple[str, ...]  # named parse defects of the completion
    valid: bool  # the environment understood the action and it was possible
    env_reward: float  # paid by the environment, in its reward units: 10 for a win by default
    truth: float | None  # ground-truth progress after the step, 0..1
    feedback: str = ""  # the observation after the action
    shortened: str = ""  # what its prompt lost to fit its token limit: "history", "observation" or ""
    reached: Hashable | None = None  # key of the state after acting, as ``anchor``; None: unknown
    terms: dict[str, float] = field(default_factory=dict)  # composite reward by term, set by credit
    advantage: float = 0.0  # of the action's tokens, set by credit
    progress_advantage: float = 0.0  # of the other tokens with advantage_on="split", set by credit
    advice: Advice | None = None  # of demonstrations with mistakes; None: the action is the expert's answer

    @property
    def mistake(self) -> bool:
        """Another action than the expert's was executed: it is never trained on."""
        return self.advice is not None and self.advice.action != self.action


@dataclass(slots=True)
class Reflection:
    """The judgement of a finished episode: its retrospective progress."""

    prompt: str  # the text that the judge completed
    completion: Completion  # what the judge answered
    values: tuple[int, ...] | None  # P_1..P_T; None when the text gave no T valid values
    defects: tuple[str, ...]  # named parse defects
    terms: dict[str, float] = field(default_factory=dict)  # its reward by term, set by credit
    advantage: float = 0.0  # set by credit
    trained: bool = True  # whether it is a training sample, set by credit
    shortened: bool = False  # observations were shortened to fit the prompt's token limit


class Status(StrEnum):
    """How an episode ended. Whether it was won is recorded separately (``Trajectory.won``)."""

    RUNNING = "running"
    TERMINATED = "terminated"  # by the environment: won, or impossible to win
    TRUNCATED = "truncated"  # by the environment's step limit
    CONTEXT_FULL = "context_full"  # chat: the conversation had no tokens left for another turn
    FAILED = "failed"  # an error of environment, server or prompt; ``Trajectory.error`` says which


@dataclass(slots=True)
class Trajectory:
    """One episode: T steps, its outcome, and the reflection on it."""

    task_id: str  # under which the environment finds the task again
    rollout: int  # with task_id the name of its random stream; unique within an iteration of training
    goal: str  # the task in words
    steps: list[Step]  # [T]
    won: bool  # the task was solved
    score: float  # of the outcome, 0..1
    status: Status = Status.RUNNING  # how it ended
    final_observation: str = ""  # after the last step
    reflection: Reflection | None = None
    error: str | None = None  # why it failed; None otherwise

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.steps)

    @property
    def env_return(self) -> float:
        """The undiscounted sum of the environment's rewards."""
        return sum(step.env_reward for step in self.steps)

    @property
    def judged(self) -> tuple[int, ...] | None:
        """P_1..P_T of the reflection, [T], 0..100; None without a valid reflection on all steps."""
        values = None if self.reflection is None else self.reflection.values
        return values if values is not None and len(values) == len(self.steps) else None

    @property
    def failed(self) -> bool:
        """It ended by an error outside the task, so its outcome is unknown."""
        return self.status is Status.FAILED

    @property
    def truncated(self) -> bool:
        """It ended at a limit on steps or tokens, before the task was over."""
        return self.status in (Status.TRUNCATED, Status.CONTEXT_FULL)

    def fail(self, reason: str) -> None:
        """End it with an error. Failures are recorded, so that one episode never stops the others."""
        self.status, self.error = Status.FAILED, reason


@dataclass(slots=True)
class Group:
    """The G rollouts of one task."""

    task_id: str  # of all its trajectories
    trajectories: list[Trajectory]  # [G]


class TokenKind(IntEnum):
    """What a token of a sample is trained as."""

    CONTEXT = 0  # input only, not trained on
    ACT = 1  # of an action's completion
    REFLECT = 2  # of a reflection


class AnswerPart(IntEnum):
    """Which part of a demonstrated answer a token belongs to."""

    OTHER = 0
    PROGRESS = 1
    ACTION = 2  # with its tags and the end-of-turn token


PART_BASE = 4  # of the codes in ``Sample.parts``: more than there are kinds of parts


def part_code(number: int, part: AnswerPart) -> int:
    """The code of the tokens of part ``number`` (1-based) of a sample, as in ``Sample.parts``."""
    return PART_BASE * number + part


def part_of(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N], the AnswerPart of each code [N] of ``part_code``."""
    return codes % PART_BASE


class Piece(NamedTuple):
    """Consecutive tokens of a sample to imitate."""

    ids: Ids  # token ids
    kind: TokenKind  # of all its tokens
    part: AnswerPart = AnswerPart.OTHER  # of the answer that its tokens belong to


@dataclass(slots=True, frozen=True)
class Branch:
    """Another answer at some position of a sample: what an expert says where a mistake was executed."""

    at: int  # the branch begins like the sample's first ``at`` tokens
    pieces: tuple[Piece, ...]  # and goes on with these


@dataclass(slots=True)
class Sample:
    """A token sequence to train on: one prompt with its completion, or a whole conversation."""

    ids: NDArray[np.int64]  # [L]
    kind: NDArray[np.int8]  # [L], TokenKind
    advantage: NDArray[np.float32]  # [L], 0 where not trained
    logprob: NDArray[np.float32]  # [L], of the sampled id, 0 where not trained
    group: int  # index of the task group; mini-batches are split by it
    # Index of a trained token -> the ids it was drawn from; no entry: the whole vocabulary.
    allowed: Mapping[int, Ids] = field(default_factory=dict)
    # Of demonstrations, [L]: ``part_code`` of each token of a trained part of an answer; 0 elsewhere.
    parts: NDArray[np.int64] | None = None
    branches: tuple[Branch, ...] = ()  # of demonstrations
    # [L], log-probs of the teacher in self-distillation, NaN where it has none; None: no teacher at all.
    teacher: NDArray[np.float32] | None = None

    @property
    def trained(self) -> NDArray[np.bool_]:
        """[L], True where the token was sampled by the policy and is trained on."""
        return np.not_equal(self.kind, TokenKind.CONTEXT)
