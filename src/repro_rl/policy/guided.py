"""Guided answers in token ids: what is given, what may be sampled, and the sampling plan of a batch.

A ``GuidedText`` becomes a ``TokenGuide``: the ids that the tokenizer gives its fixed pieces, and the ids with
which it spells each integer there (one token, or digit by digit; a space before it may belong to either).
At every token the guide names the ids that may follow. Where there is one only, it is given, and so it is no
decision of the policy: its log-prob is 0 and it is not trained on. Where there are several, one is sampled
from the model's distribution over them alone, renormalised. The trainer computes the same, since these ids
travel with the completion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.errors import ConfigError
from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.sampling import BlockDecoder, Decoder, Drawn, SampledRow, draw, top_p_filter
from repro_rl.policy.text import TextCodec
from repro_rl.random_streams import uniforms
from repro_rl.text.guided import GuidedText
from repro_rl.types import Ids

EXCLUDED = -1e30  # logit of what may not be drawn: its probability is 0, and no product with it is NaN
REMEDY = (
    "Set prompt.reflect_form=free, or in compact style the prompt.resolution that the model was made with."
)
PROBES = (3, 4)  # numbers of one digit, whose texts show where integers stand among the tokens


class TokenGuide:
    """A guided answer in a tokenizer's ids, without an end yet: a ``Cursor`` goes through it.

    ``given``: [K + 1], the ids of the fixed pieces, the last of them with the end of the answer.
    ``spellings``: the ids of every integer that may be sampled. Raises ConfigError where the end of an
    integer cannot be told from another digit.
    """

    def __init__(self, given: tuple[Ids, ...], spellings: dict[int, Ids]):
        self.given, self.spellings = given, spellings
        self._complete = frozenset(spellings.values())
        following: dict[Ids, set[int]] = {ids: set() for ids in self._complete}
        for ids in self._complete:
            for size, token in enumerate(ids):
                following.setdefault(ids[:size], set()).add(token)
        for piece in given[1:]:
            if not piece or any(piece[0] in following[ids] for ids in self._complete):
                raise ConfigError("Between two integers of a guided answer stands nothing, or another digit.")
        self._following = {ids: tuple(sorted(after)) for ids, after in following.items()}
        self._choices: dict[tuple[Ids, int], Ids] = {}  # equal sets of ids are one object

    @property
    def longest(self) -> int:
        """Tokens of the longest answer."""
        return sum(map(len, self.given)) + (len(self.given) - 1) * max(map(len, self._complete))

    def choices(self, index: int, spelled: Ids) -> Ids:
        """The ids that may follow where ``spelled`` is what stands of integer ``index``, ascending."""
        end = self.given[index + 1][0]
        key = (spelled, end)
        if key not in self._choices:
            after = self._following[spelled]
            self._choices[key] = tuple(sorted((*after, end))) if spelled in self._complete else after
        return self._choices[key]

    def continues(self, spelled: Ids, token: int) -> bool:
        """Whether ``token`` belongs to the integer of which ``spelled`` stands; else it ends it."""
        return token in self._following[spelled]

    def encode(self, values: Sequence[int]) -> tuple[Ids, tuple[Ids, ...]]:
        """The ids [N] of the answer with these integers [K], and the ids that each could be."""
        ids = list(self.given[0])
        for value, piece in zip(values, self.given[1:], strict=True):
            ids += (*self.spellings[value], *piece)
        cursor = Cursor(self)
        while not cursor.ended:
            cursor.take(ids[len(cursor.ids)])
        return tuple(cursor.ids), tuple(cursor.allowed)


class Cursor:
    """One answer under way: its ids so far, and what may be sampled next."""

    def __init__(self, guide: TokenGuide):
        self.guide = guide
        self.ids: list[int] = []
        self.allowed: list[Ids] = []  # the ids that each could be; one: it was given
        self._index = 0  # of the integer that is being spelled
        self._spelled: Ids = ()
        self._give(guide.given[0])
        self._go_to_choice()

    @property
    def ended(self) -> bool:
        """All K integers and the last piece stand."""
        return self._index + 1 == len(self.guide.given)

    @property
    def choices(self) -> Ids:
        """The ids, two or more, of which one is to be sampled; the answer has not ended."""
        return self.guide.choices(self._index, self._spelled)

    def take(self, token: int) -> None:
        """Append a sampled token, and what is given behind it."""
        self._append(token, self.choices)
        self._go_to_choice()

    def _go_to_choice(self) -> None:
        while not self.ended and len(self.choices) == 1:
            self._append(self.choices[0], self.choices)

    def _append(self, token: int, choices: Ids) -> None:
        self.ids.append(token)
        self.allowed.append(choices)
        if self.guide.continues(self._spelled, token):
            self._spelled = (*self._spelled, token)
        else:
            self._index, self._spelled = self._index + 1, ()
            self._give(self.guide.given[self._index][1:])

    def _give(self, ids: Ids) -> None:
        self.ids += ids
        self.allowed += [(token,) for token in ids]


# From a text to a tokenizer's ids -----------------------------------------------------------------

_guides: WeakKeyDictionary[TextCodec, dict[GuidedText, TokenGuide]] = WeakKeyDictionary()


def token_guide(text: TextCodec, form: GuidedText) -> TokenGuide:
    """The guide of ``form`` for a tokenizer, made once.

    Raises ConfigError where the tokenizer has no ids for an integer, or where the ids do not give the text
    back.
    """
    guides = _guides.setdefault(text, {})
    if form not in guides:
        guides[form] = _build(text, form)
    return guides[form]


def _build(text: TextCodec, form: GuidedText) -> TokenGuide:
    given, probe, spelled = _given(text, form)
    # How an integer is spelled is asked in a text of two, of which it is the first.
    short = GuidedText((*form.pieces[:2], form.pieces[-1])[: len(form) + 1], form.values)
    first, *rest = _given(text, short)[0]
    tail = tuple(token for piece in rest[1:] for token in (*spelled, *piece))
    spellings: dict[int, Ids] = {}
    for value in form.values:
        ids = text.encode_target(short.render((value, probe)[: len(short)]))
        end = (*rest[0], *tail)
        middle = ids[len(first) : len(ids) - len(end)]
        if ids[: len(first)] == first and ids[len(ids) - len(end) :] == end and middle:
            spellings[value] = middle
    _spell_the_rest(spellings, form)
    _check(text, form, TokenGuide(given, spellings))
    return TokenGuide(given, spellings)


def _given(text: TextCodec, form: GuidedText) -> tuple[tuple[Ids, ...], int, Ids]:
    """The ids of the fixed pieces [K + 1], a number that is one token there, and that token.

    The ids of two texts that differ in all their numbers differ at those numbers alone. So a space that the
    tokenizer puts into the number's token is in no fixed piece, and any other one is.
    """
    pairs = [PROBES, *pairwise(form.values)]
    for left, right in pairs:
        one, other = (text.encode_target(form.render([value] * len(form))) for value in (left, right))
        if len(one) != len(other) or _unknown(text, one) or _unknown(text, other):
            continue
        at = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        if len(at) == len(form):
            bounds = [-1, *at, len(one)]
            pieces = tuple(one[start + 1 : stop] for start, stop in pairwise(bounds))
            return pieces, left, (one[at[0]],)
    example = form.render([form.values[1]] * len(form))[:60]
    raise ConfigError(
        f"prompt.reflect_form=guided: in {example!r} the tokenizer has no token for a number alone. {REMEDY}"
    )


def _unknown(text: TextCodec, ids: Iterable[int]) -> bool:
    unknown = text.tokenizer.unk_token_id
    return unknown is not None and unknown in ids


def _spell_the_rest(spellings: dict[int, Ids], form: GuidedText) -> None:
    """Integers that the tokenizer would join with what stands before or behind: digit by digit."""
    for value in form.values:
        digits = [int(digit) for digit in str(value)]
        if value not in spellings and len(digits) > 1 and all(digit in spellings for digit in digits):
            spellings[value] = tuple(token for digit in digits for token in spellings[digit])


def _check(text: TextCodec, form: GuidedText, guide: TokenGuide) -> None:
    """Every integer must have ids, none of them unknown, and they must read as the text."""
    for value in form.values:
        values = [value] * len(form)
        ids = guide.encode(values)[0] if value in guide.spellings else ()
        wanted = text.decode(text.encode_target(form.render(values)))
        if _unknown(text, ids) or text.decode(ids).split() != wanted.split():
            raise ConfigError(
                f"prompt.reflect_form=guided: the tokenizer cannot write {value} in a reflection"
                f" ({wanted[:40]!r} reads back as {text.decode(ids)[:40]!r}). {REMEDY}"
            )


# Sampling -----------------------------------------------------------------------------------------


class GuidedPlan:
    """What stands for free sampling where answers are guided, see ``sampling.Plan``. One guide a row.

    A row samples where its guide has a choice. What is given behind the sampled token goes to the decoder
    with it, as one block, as far as the decoder takes blocks of such lengths; else token by token.
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
    text: TextCodec, forms: Sequence[GuidedText] | None, settings: SamplingSettings
) -> GuidedPlan | None:
    """The plan of answers with these forms; None: free answers. Raises what ``token_guide`` raises."""
    if forms is None:
        return None
    return GuidedPlan([token_guide(text, form) for form in forms], settings.max_new_tokens)


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
    """As ``sample_tokens``, each row from the distribution over its ``choices`` alone."""
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


def padded_choices(sets: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sets of ids as one table [N, M], and where it is only padded [N, M]."""
    width = max(map(len, sets))
    table = torch.tensor([[*ids, *ids[:1] * (width - len(ids))] for ids in sets])
    size = torch.tensor([len(ids) for ids in sets])
    return table, torch.arange(width) >= size[:, None]
