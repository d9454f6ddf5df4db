"""Sampling of guided answers: a plan for a batch of ``TokenGuide``, in place of free sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.errors import ConfigError
from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.decoding.sampling import BlockDecoder, Decoder, Drawn, SampledRow, draw, top_p_filter
from repro_rl.policy.forward.choices import EXCLUDED, padded_choices
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.guide import Cursor, TokenGuide, token_guide
from repro_rl.random_streams import uniforms
from repro_rl.text.guided import GuidedText
from repro_rl.types import Ids


class GuidedPlan:
    """What stands for free sampling where answers are guided, see ``sampling.Plan``. One guide a row.

    A row samples where its guide has a choice. What is given behind the sampled token goes to the decoder
    with it, as one block. Where the decoder does not take blocks of such lengths, it goes token by token.
    Raises ConfigError for an answer that may be longer than ``max_new_tokens``.
    """

    def __init__(self, guides: Sequence[TokenGuide], max_new_tokens: int):
        longest = max(guide.longest for guide in guides)
        if longest > max_new_tokens:
            raise ConfigError(
                f"A guided reflection has up to {longest} tokens here; raise prompt.reflect_new_tokens "
                f"(now {max_new_tokens}) to that."
            )
        self.cursors = [Cursor(guide) for guide in guides]
        self._begun = [len(cursor.ids) for cursor in self.cursors]  # [rows], ids given at the beginning
        self._fed = np.array(self._begun)  # [rows], ids that the decoder has, or gets next

    def begin(self, prompts: Sequence[Ids]) -> list[Ids]:
        """The prompts [rows] with what is given at the beginning of each answer: the decoder's prompts."""
        return [(*ids, *cursor.ids) for ids, cursor in zip(prompts, self.cursors, strict=True)]

    def draw(
        self,
        logits: torch.Tensor,
        branch: NDArray[np.int64],
        active: NDArray[np.int64],
        keys: Keys,
        settings: SamplingSettings,
    ) -> Drawn:
        """See Plan. A token that is given has log-prob and entropy 0."""
        cursors = [self.cursors[row] for row in active]
        position = self._fed[active]
        sampling = np.array([len(cursor.ids) == at for cursor, at in zip(cursors, position, strict=True)])
        if sampling.any():
            choices = [cursor.choices for cursor, free in zip(cursors, sampling, strict=True) if free]
            uniform = uniforms(keys[active[sampling]], position[sampling])
            token, value, spread = draw_allowed(logits, branch[sampling], choices, uniform, settings)
            for row, taken in zip(active[sampling], token.tolist(), strict=True):
                self.cursors[row].take(taken)
        logprob, entropy = np.zeros(len(active), np.float32), np.zeros(len(active), np.float32)
        if sampling.any():
            logprob[sampling], entropy[sampling] = value, spread
        chosen = np.array([cursor.ids[at] for cursor, at in zip(cursors, position, strict=True)])
        self._fed[active] += 1
        return chosen, logprob, entropy

    def follow(self, decoder: Decoder, active: NDArray[np.int64]) -> tuple[list[Ids], NDArray[np.bool_]]:
        """See Plan."""
        rest = [tuple(self.cursors[row].ids[self._fed[row] :]) for row in active]
        ended = np.array([self.cursors[row].ended for row in active])
        waiting = [len(ids) for ids, over in zip(rest, ended, strict=True) if not over]
        if waiting and not takes(decoder, waiting):
            shortest = min(waiting)
            size = shortest if takes(decoder, [shortest] * len(waiting)) else 0
            rest = [ids if over else ids[:size] for ids, over in zip(rest, ended, strict=True)]
        self._fed[active] += np.array([len(ids) for ids in rest])
        return rest, ended

    def complete(self, rows: list[SampledRow]) -> list[SampledRow]:
        """See Plan."""
        done = []
        for row, cursor, begun in zip(rows, self.cursors, self._begun, strict=True):
            sampled = sum(len(ids) > 1 for ids in cursor.allowed)
            done.append(
                SampledRow(
                    token_ids=tuple(cursor.ids),
                    logprobs=np.concatenate([np.zeros(begun, np.float32), row.logprobs]),
                    entropy=row.entropy * len(row.token_ids) / max(sampled, 1),
                    finished=row.finished,
                    allowed=tuple(cursor.allowed),
                )
            )
        return done


def guided_plan(
    codec: TextCodec, forms: Sequence[GuidedText] | None, settings: SamplingSettings
) -> GuidedPlan | None:
    """The plan of answers with these forms; None: free answers. Raises what ``token_guide`` raises."""
    if forms is None:
        return None
    return GuidedPlan([token_guide(codec, form) for form in forms], settings.max_new_tokens)


def takes(decoder: Decoder, more: Sequence[int]) -> bool:
    """Whether the decoder appends, in one step, a token with so many ``more`` behind it to each branch."""
    if not any(more):
        return True
    return isinstance(decoder, BlockDecoder) and decoder.takes([1 + count for count in more])


def draw_allowed(
    logits: torch.Tensor,
    branch: NDArray[np.int64],
    choices: Sequence[Ids],
    uniform: NDArray[np.float64],
    settings: SamplingSettings,
) -> Drawn:
    """As ``sample_tokens``, each row from the distribution over its ``choices`` alone.

    logits [B, V]; ``branch`` [rows], the branch of each row; ``choices``: the ids that each row may draw;
    ``uniform`` [rows], numbers in [0, 1). Returns token, its log-prob and the entropy, [rows] each.
    """
    groups: dict[tuple[int, Ids], int] = {}
    pairs = zip(branch.tolist(), choices, strict=True)
    group = np.array([groups.setdefault(pair, len(groups)) for pair in pairs])
    ids, excluded = (part.to(logits.device) for part in padded_choices([ids for _, ids in groups]))
    source = torch.tensor([at for at, _ in groups], device=logits.device)
    scaled = logits[source[:, None], ids].float()
    if settings.temperature > 0:
        scaled = scaled / settings.temperature
    logprobs = torch.log_softmax(scaled.masked_fill(excluded, EXCLUDED), dim=-1)
    probs = logprobs.exp()
    entropy = -(probs * logprobs).sum(-1)
    rows = torch.as_tensor(group, device=logits.device)
    if settings.temperature == 0:
        chosen = logprobs.argmax(-1)[rows]
    else:
        weights = top_p_filter(probs, settings.top_p) if settings.top_p < 1 else probs
        chosen = draw(weights, group, uniform)
    chosen = torch.minimum(chosen, (~excluded).sum(-1)[rows] - 1)  # rounding may reach beyond the last one
    picked = logprobs[rows, chosen]
    return ids[rows, chosen].cpu().numpy(), picked.cpu().numpy(), entropy[rows].cpu().numpy()
