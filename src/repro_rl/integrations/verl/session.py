"""One episode for verl: our own rollout and reflection, asked of verl's generation server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repro_rl.config import RunConfig
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout import EnvPool, Job, reflect, run_episodes
from repro_rl.rollout.episode import with_completions
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.build import build_prompts, forward_sampling
from repro_rl.train.loop import reflection_sampling
from repro_rl.types import Completion, Ids, Trajectory

SEED_BITS = (1 << 63) - 1  # servers take a signed 64-bit seed; our keys have 64 bits


@dataclass(slots=True)
class Answer:
    """What a generation server returned for one prompt."""

    token_ids: Ids  # [N]
    logprobs: Sequence[float] | None  # [N]
    extra: dict[str, Any] = field(
        default_factory=dict
    )  # the server's own notes, such as its weights' version


# (prompt ids, sampling settings, seed) -> answer; blocks until it is there.
Ask = Callable[[Ids, SamplingSettings, int], Answer]


class ServerPolicy:
    """A ``Policy`` whose completions come from a token-in, token-out server.

    ``text`` encodes and decodes as everywhere in repro_rl. ``extras`` keeps the server's notes by ``id`` of
    the completion, for as long as this object lives.
    """

    def __init__(self, text: TransformersPolicy, ask: Ask):
        self.text, self.ask = text, ask
        self.extras: dict[int, dict[str, Any]] = {}
        self._kept: list[Completion] = []  # so that no id is used twice

    def encode(self, prompt: str) -> Ids:
        return self.text.encode(prompt)

    def generate(
        self, prompts: Sequence[str], keys: NDArray[np.uint64], settings: SamplingSettings
    ) -> list[Completion]:
        """See Policy.generate. An answer without tokens gives a completion with ``error`` set."""
        return [
            self._complete(self.encode(prompt), settings, int(key) & SEED_BITS)
            for prompt, key in zip(prompts, keys, strict=True)
        ]

    def _complete(self, prompt: Ids, settings: SamplingSettings, seed: int) -> Completion:
        answer = self.ask(prompt, settings, seed)
        ids = tuple(answer.token_ids)
        logprobs = np.zeros(len(ids)) if answer.logprobs is None else np.asarray(answer.logprobs)
        completion = Completion(
            prompt_ids=prompt,
            token_ids=ids,
            logprobs=logprobs.astype(np.float32),
            text=self.text.decode(ids),
            finished=bool(ids) and ids[-1] in self.text.eos_ids,
            error=None if ids else "the generation server gave no tokens",
        )
        self._kept.append(completion)
        self.extras[id(completion)] = answer.extra
        return completion


@dataclass(slots=True, frozen=True)
class Task:
    """Which episode to play: a row of our data files, and verl's number of the session."""

    stage: str  # "train" | "validation"
    task_id: str
    iteration: int  # 1-based; 0 in validation
    place: int  # index of the task in its iteration, or in the panel
    session: int  # 0..G-1


def play_session(
    config: RunConfig,
    pool: EnvPool,
    prompts: PromptBuilder,
    policy: ServerPolicy,
    task: Task,
) -> Trajectory:
    """Play and, in training and where the method asks for it, reflect.

    Named as in ``train.loop`` and ``rollout.counts``: the same seed, task and weights give the same
    random streams there and here.
    """
    train, method = config.train, config.method
    training = task.stage == "train"
    stream: object = ("train", config.seed, task.iteration) if training else ("panel", config.eval.seed)
    rollout = task.place * train.group_size + task.session if training else task.session
    temperature = train.temperature if training else config.eval.validation_temperature
    trajectories = run_episodes(
        pool,
        [Job(task.task_id, rollout)],
        policy,
        prompts,
        forward_sampling(config, temperature),
        stream=stream,
        max_prompt_tokens=config.prompt.max_prompt_tokens,
    )
    if training and method.reflect:
        reflect(
            trajectories,
            policy,
            prompts,
            reflection_sampling(config, task.iteration, task.place, task.session),
            instructions=pool.first.instructions,
            stream=stream,
            max_prompt_tokens=config.prompt.max_reflect_tokens,
        )
    return trajectories[0]


def session_samples(trajectory: Trajectory, with_reflection: bool) -> list[tuple[str, Completion]]:
    """What is trained on, in the order of ``train.samples.build_samples``: (kind, completion)."""
    rows = [("forward", step.completion) for step in trajectory.steps if step.completion.token_ids]
    reflection = trajectory.reflection
    if with_reflection and reflection is not None and reflection.completion.token_ids:
        rows.append(("reflect", reflection.completion))
    return rows


def light(trajectory: Trajectory) -> Trajectory:
    """A copy to send to the trainer: its completions without prompt ids, which the batch holds already."""
    return with_completions(trajectory, _light)


def _light(completion: Completion) -> Completion:
    counted = (completion.prompt_tokens, completion.tokens)
    return replace(completion, prompt_ids=(), counted=counted)


def text_of(config: RunConfig, path: str) -> TransformersPolicy:
    """The tokenizer side of a policy: encodes, decodes, knows the end-of-text tokens; it has no weights."""
    from types import SimpleNamespace

    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(path)
    except OSError:  # a model folder need not have one
        generation = None
    shell = SimpleNamespace(config=AutoConfig.from_pretrained(path), generation_config=generation)
    return TransformersPolicy(
        shell, AutoTokenizer.from_pretrained(path), chat=config.policy.chat, thinking=config.policy.thinking
    )


def session_prompts(config: RunConfig) -> PromptBuilder:
    """The prompts of training and validation alike: the method's."""
    return build_prompts(config)
