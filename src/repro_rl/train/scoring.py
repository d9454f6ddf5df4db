"""A second scoring of sampled answers: by the frozen reference, or under a prompt that tells more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from repro_rl.config import MethodSection
from repro_rl.policy.model.memory import SCORING, memory_explained
from repro_rl.policy.model.mode import evaluating
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.transformers_policy import TransformersPolicy
from repro_rl.rollout.privileged import privileged_ids, privileged_text
from repro_rl.rollout.samples import TrainedPart, make_sample
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.batch import Collation, Row, single_row
from repro_rl.train.logits import target_logits, target_logprobs
from repro_rl.types import Completion, Group, Ids, TokenKind, Trajectory

# Of each privileged prompt: the share of answers without one, and what it adds to the log-prob of the others.
METRICS = {
    "hindsight": ("rollout/unscored_hindsight", "rollout/hindsight_gain"),
    "teacher": ("rollout/unscored_teacher", "rollout/teacher_gain"),
}


@dataclass(slots=True, frozen=True)
class Scorer:
    """Adds to each completion's ``scored`` what the method reads: "reference", "hindsight", "teacher".

    Every prompt stands for itself (``prompt.context=window``). The weights are those before the update.
    """

    policy: TransformersPolicy  # in training
    reference: Any  # the frozen model, or None where nothing asks for it
    prompts: PromptBuilder
    limit: int  # most tokens of a prompt
    micro_tokens: int
    temperature: float  # that the answers were sampled at

    def score(self, groups: Sequence[Group], method: MethodSection) -> dict[str, float]:
        """Score every answer of these groups. Returns the metrics."""
        trajectories = [t for group in groups for t in group.trajectories if t.steps]
        metrics: dict[str, float] = {}
        if method.scores_reference:
            answers = [s.completion for t in trajectories for s in t.steps if s.completion.token_ids]
            self._score([(c.prompt_ids, c) for c in answers], "reference", self.reference)
        if method.scores_hindsight:
            metrics |= self._score_privileged(trajectories, method.hindsight, "hindsight")
            for step in (step for t in trajectories for step in t.steps):  # without a text: as it was sampled
                step.completion.scored.setdefault("hindsight", step.completion.logprobs.copy())
        if method.distills:
            won_only = method.distill.on == "won"
            metrics |= self._score_privileged(trajectories, method.distill.text, "teacher", won_only=won_only)
        return metrics

    def _score_privileged(
        self, trajectories: Sequence[Trajectory], what: str, name: str, *, won_only: bool = False
    ) -> dict[str, float]:
        """Score under privileged prompts. Returns metrics: the share of answers without one, and the gain.

        The gain of an answer is what the privileged text adds to its log-prob, in nats. Clearly negative ones
        say that the model cannot read such prompts. ``won_only``: only answers of won episodes get one.
        """
        requests: list[tuple[Ids, Completion]] = []
        count = 0
        codec: TextCodec = self.policy.codec
        for trajectory in trajectories:
            text = "" if won_only and not trajectory.won else privileged_text(trajectory, what, self.prompts)
            for step in trajectory.steps:
                if not step.completion.token_ids:
                    continue
                count += 1
                ids = privileged_ids(step.prompt, text, what, self.prompts, codec, self.limit)
                if ids is not None:
                    requests.append((ids, step.completion))
        self._score(requests, name, self.policy.model)
        unscored, gain = METRICS[name]
        metrics = {unscored: 1 - len(requests) / max(count, 1)}
        if requests:
            gains = [float((c.scored[name] - c.logprobs).sum()) for _, c in requests]
            metrics[gain] = sum(gains) / len(gains)
        return metrics

    @torch.no_grad()
    @memory_explained("scoring answers", SCORING)
    def _score(self, requests: Sequence[tuple[Ids, Completion]], name: str, model: Any) -> None:
        """Write the log-probs of each completion after the given prompt; a given token has 0."""
        rows: list[Row] = []
        waiting: dict[int, Completion] = {}
        for prompt, completion in requests:
            part = TrainedPart(_after(prompt, completion), 0.0, TokenKind.ACT)
            row = single_row(make_sample([part], 0))
            completion.scored[name] = np.zeros(len(completion.token_ids), dtype=np.float32)
            if row.trained[1:].any():
                waiting[id(row)] = completion
                rows.append(row)
        collation = Collation.of(self.policy, model)
        for chunk in collation.split(rows, self.micro_tokens):
            batch = collation.collate(chunk, {TokenKind.ACT: 1.0})
            with evaluating(self.policy.model), self.policy.precision():
                logits, index = target_logits(model, batch, self.temperature)
            logp = target_logprobs(torch.log_softmax(logits, dim=-1), batch, index).float().cpu().numpy()
            start = 0
            for row in chunk:
                completion = waiting[id(row)]
                size = len(completion.token_ids)
                trained = row.trained[len(row.ids) - size :]
                stop = start + int(trained.sum())
                completion.scored[name][trained] = logp[start:stop]
                start = stop


def _after(prompt: Ids, completion: Completion) -> Completion:
    """The same answer after another prompt."""
    return Completion(
        prompt,
        completion.token_ids,
        completion.logprobs,
        completion.text,
        completion.finished,
        allowed=completion.allowed,
    )
