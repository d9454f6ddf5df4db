"""One episode for verl: our own rollout and reflection, sampled by verl's generation server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_rl.errors import ConfigError
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest
from repro_rl.rollout.episode import with_completions
from repro_rl.run.setup import Setup
from repro_rl.text.guided import GuidedText
from repro_rl.train import ReflectionSampling
from repro_rl.types import Completion, Ids, TokenKind, Trajectory

SEED_BITS = (1 << 63) - 1  # servers take a signed 64-bit seed; our keys have 64 bits
# verl's servers that take a seed with a request, and what each calls it. SGLang's SamplingParams refuses
# other names. Sources: ``generate`` of each server in verl 0.9.1, SamplingParams of SGLang 0.5.12 and of
# TensorRT-LLM.
SEED_NAMES = {"vllm": "seed", "sglang": "sampling_seed", "trtllm": "seed", "repro_rl_cpu": "seed"}


@dataclass(slots=True)
class Answer:
    """What a generation server returned for one prompt."""

    token_ids: Ids  # [N]
    logprobs: Sequence[float] | None  # [N]
    extra: dict[str, Any] = field(
        default_factory=dict
    )  # the server's own notes, such as its weights' version


def request_params(server: str, seed: int, stop: Iterable[int]) -> dict[str, Any]:
    """A seed of its own and every token that ends a text, in the words of verl's ``server``.

    Nothing for a server that is not known: one that does not take them would refuse the request.
    """
    name = SEED_NAMES.get(server)
    return {} if name is None else {name: seed, "stop_token_ids": sorted(stop)}


# (prompt ids, sampling settings, seed) -> answer; blocks until it is there.
Ask = Callable[[Ids, SamplingSettings, int], Answer]


class ServerPolicy(TokenPolicy):
    """A policy whose completions come from a token-in, token-out server.

    ``extras`` keeps the server's notes by ``id`` of the completion, for as long as this object lives.
    """

    def __init__(self, codec: TextCodec, ask: Ask):
        self.codec, self.ask = codec, ask
        self.extras: dict[int, dict[str, Any]] = {}
        self._completions: list[Completion] = []  # keeps them alive, so that no id is used twice

    def generate_ids(
        self,
        encoded: Sequence[Ids],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See TokenPolicy. An answer that cannot be trained on gives a completion with ``error`` set.

        Raises ConfigError for guided answers, which verl's servers cannot give, and where the server is set
        to return no log-probs.
        """
        if forms is not None:
            raise ConfigError("The verl integration has no guided reflections: set prompt.reflect_form=free.")
        return [
            self._complete(prompt, settings, int(key) & SEED_BITS)
            for prompt, key in zip(encoded, keys, strict=True)
        ]

    def _complete(self, prompt: Ids, settings: SamplingSettings, seed: int) -> Completion:
        answer = self.ask(prompt, settings, seed)
        if answer.logprobs is None and answer.token_ids:
            raise ConfigError(
                "verl's generation server returns no log-probs, which training corrects by: leave "
                "actor_rollout_ref.rollout.calculate_log_probs at true."
            )
        logprobs = np.asarray(answer.logprobs or (), dtype=np.float32)
        problem = _problem(answer.token_ids, logprobs)
        ids = () if problem else self._bounded(answer.token_ids, settings.max_new_tokens)
        completion = Completion(
            prompt_ids=prompt,
            token_ids=ids,
            logprobs=logprobs[: len(ids)],
            text=self.codec.decode(ids),
            finished=bool(ids) and ids[-1] in self.codec.eos_ids,
            error=problem,
        )
        self._completions.append(completion)
        self.extras[id(completion)] = answer.extra
        return completion

    def _bounded(self, ids: Ids, limit: int) -> Ids:
        """An answer up to the first token that ends a text, and to ``limit`` tokens.

        That is what a server gives that keeps to both. verl's server of TensorRT-LLM keeps to neither. It
        has stop tokens of its own, and generates up to verl's ``max_response_length``.
        """
        ends = (n for n, token in enumerate(ids[:limit], 1) if token in self.codec.eos_ids)
        return tuple(ids[: next(ends, limit)])


def _problem(ids: Ids, logprobs: NDArray[np.float32]) -> str | None:
    """Why an answer cannot be trained on; None where it can."""
    if not ids:
        return "the generation server gave no tokens"
    if len(ids) != len(logprobs):
        return f"the generation server gave {len(ids)} tokens and {len(logprobs)} log-probs"
    return None if np.isfinite(logprobs).all() else "the generation server gave a log-prob that is not finite"


@dataclass(slots=True, frozen=True)
class Task:
    """Which episode to play: a row of our data files, and verl's number of the session."""

    stage: str  # "train" | "validation"
    task_id: str
    iteration: int  # 1-based; 0 in validation
    group: int  # index of the task in its iteration, or in the panel
    session: int  # 0..G-1


def is_trained(setup: Setup, task: Task) -> bool:
    """Whether this session's reflection is a training sample."""
    size = setup.config.train.group_size
    return task.session in setup.reflection_choice().chosen(task.iteration, task.group, size)


def play_session(setup: Setup, policy: ServerPolicy, task: Task) -> Trajectory:
    """Play and, in training and where the method asks for it, reflect.

    Random streams are named as in our own trainer and validation: the same seed, task and weights give the
    same streams there and here.
    """
    config = setup.config
    train = config.train
    if task.stage == "train":
        stream: object = ("train", config.seed, task.iteration)
        request = RolloutRequest(task.task_id, task.group * train.group_size + task.session)
        actor = Actor(policy, setup.prompts, setup.action_sampling(train.temperature))
        reflections = ReflectionSampling.of_run(setup)
        sampling = reflections.settings(task.iteration, task.group, task.session)
        judge = Judge(sampling) if config.method.reflect else None
    else:
        stream = ("panel", config.eval.seed)
        request = RolloutRequest(task.task_id, task.session)
        actor = Actor(policy, setup.prompts, setup.action_sampling(config.eval.validation_temperature))
        judge = None
    (trajectory,) = setup.context(policy.codec).play([request], actor, judge, PlayOptions(stream))
    return trajectory


def session_samples(trajectory: Trajectory, with_reflection: bool) -> list[tuple[TokenKind, Completion]]:
    """What is trained on, in the order of ``Context.samples``: (kind, completion)."""
    rows = [(TokenKind.ACT, step.completion) for step in trajectory.steps if step.completion.token_ids]
    reflection = trajectory.reflection
    if with_reflection and reflection is not None and reflection.completion.token_ids:
        rows.append((TokenKind.REFLECT, reflection.completion))
    return rows


def without_prompt_ids(trajectory: Trajectory) -> Trajectory:
    """A copy to send to the trainer: its completions without prompt ids, which the batch holds already."""

    def strip(completion: Completion) -> Completion:
        counted = (completion.prompt_tokens, completion.tokens)
        return replace(completion, prompt_ids=(), counted=counted)

    return with_completions(trajectory, strip)
