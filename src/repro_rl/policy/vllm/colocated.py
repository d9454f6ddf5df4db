"""Sampling with a vLLM engine in the trainer's process, whose weights are replaced in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repro_rl.config import VllmSection
from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.loading.merging import is_tied, merged
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.policy.transformers_policy import TransformersPolicy
from repro_rl.policy.vllm.engine import Engine, engine_for
from repro_rl.policy.vllm.guided import guided_completions
from repro_rl.policy.vllm.request import completion_of, fitting, sampling_fields, too_long
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids


def whole_model(trainer: TransformersPolicy) -> tuple[Any, Any]:
    """The model that ``trainer`` stands for, an adapter added to its weights, and its configuration.

    An adapter on one of two embeddings that are one weight makes them two: another architecture.
    """
    own = trainer.model.config
    if not trainer.adapted:
        return trainer.model, own
    model = merged(trainer.model, trainer.name)
    return model, own if is_tied(own) == is_tied(model.config) else model.config


class ColocatedSampler(TokenPolicy):
    """Samples with vLLM from the weights of ``trainer``. See Sampler.

    ``longest``: tokens of the longest prompt and completion together.
    """

    def __init__(self, trainer: TransformersPolicy, section: VllmSection, longest: int):
        self.trainer, self.codec = trainer, trainer.codec
        self.section, self.longest = section, longest
        self.asleep = False
        self.engine: Engine  # built, or taken over, where its weights are
        self.weights_changed()

    def generate_ids(
        self,
        encoded: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See TokenPolicy. A prompt that is too long for the engine gives a completion with ``error``."""
        if self.engine.owner is not self or self.asleep:  # another sampler used the engine meanwhile
            self.weights_changed()
        if forms is None:
            return self._sample(encoded, keys, settings)
        limit = self.engine.max_model_len
        return guided_completions(self.codec, encoded, keys, settings, forms, limit, self._sample)

    def _sample(
        self,
        encoded: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        allowed: Sequence[Ids] | None = None,
    ) -> list[Completion]:
        """A completion for each prompt; ``allowed``: the ids that its tokens may be."""
        from vllm import SamplingParams

        limit = self.engine.max_model_len
        choices = [None] * len(encoded) if allowed is None else allowed
        out = [too_long(ids, limit) for ids in encoded]
        rows = [row for row, ids in enumerate(encoded) if len(ids) < limit]
        parameters = [
            SamplingParams(
                **sampling_fields(
                    fitting(encoded[row], settings, limit),
                    int(keys[row]),
                    self.codec.answer_tokens,
                    choices[row],
                ),
                detokenize=False,
            )
            for row in rows
        ]
        answers = (
            self.engine.llm.generate(
                [{"prompt_token_ids": list(encoded[row])} for row in rows], parameters, use_tqdm=False
            )
            if rows
            else []
        )
        for row, answer in zip(rows, answers, strict=True):
            [sampled] = answer.outputs
            ids = list(sampled.token_ids)
            logprobs = [position[i].logprob for position, i in zip(sampled.logprobs, ids, strict=True)]
            out[row] = completion_of(self.codec, encoded[row], ids, logprobs, choices[row])
        return out

    def before_update(self) -> None:
        """With ``sleep``, vLLM's weights move to the host's memory and its cache is given up."""
        if self.section.sleep and not self.asleep:
            self.engine.llm.sleep(level=1)
            self.asleep = True

    def weights_changed(self) -> None:
        """Copy the trainer's weights into the engine, tensor by tensor; an adapter is added to them first.

        Cached prefixes belong to the old weights and are dropped.
        """
        self.trainer.weights_changed()
        model, config = whole_model(self.trainer)
        self.engine = engine_for(self.trainer, config, self.section, self.longest)
        llm = self.engine.llm
        if self.asleep:
            llm.wake_up()
            self.asleep = False
        weights = [(name, parameter.detach()) for name, parameter in model.named_parameters()]
        llm.collective_rpc("repro_rl_load", kwargs={"weights": weights})
        if not llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not drop its prefix cache: a request is still running.")
        self.engine.owner = self

    def describe(self) -> dict[str, Any]:
        import vllm

        return {"backend": "vllm", "vllm": vllm.__version__, "dtype": self.engine.dtype}

    def close(self) -> None:
        """The engine stays for the next sampler of the process; ``engine.shut_down`` stops it."""
        if self.engine.owner is self:
            self.engine.owner = None
