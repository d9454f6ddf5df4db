"""Guided answers in token ids: what is given, and what may be sampled.

A ``GuidedText`` becomes a ``TokenGuide``: the ids that the tokenizer gives its fixed pieces, and those with
which it spells each integer there. That is one token, or digit by digit; a space before it may belong to
either. At every token the guide names the ids that may follow. Where there is one only, it is given, and so
it is no decision of the policy. Its log-prob is 0 and it is not trained on. Where there are several, one is
sampled from the model's distribution over them alone, renormalised. The trainer computes the same, since
these ids travel with the completion (decision D66).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

from repro_rl.errors import ConfigError
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.text.guided import GuidedText
from repro_rl.types import Ids

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


def token_guide(codec: TextCodec, form: GuidedText) -> TokenGuide:
    """The guide of ``form`` for a tokenizer, made once.

    Raises ConfigError where the tokenizer has no ids for an integer, or where the ids do not give the text
    back.
    """
    guides = _guides.setdefault(codec, {})
    if form not in guides:
        guides[form] = _build(codec, form)
    return guides[form]


def _build(codec: TextCodec, form: GuidedText) -> TokenGuide:
    given, probe, spelled = _given(codec, form)
    # How an integer is spelled is asked in a text of two, of which it is the first.
    short = GuidedText((*form.pieces[:2], form.pieces[-1])[: len(form) + 1], form.values)
    first, *rest = _given(codec, short)[0]
    tail = tuple(token for piece in rest[1:] for token in (*spelled, *piece))
    spellings: dict[int, Ids] = {}
    for value in form.values:
        ids = codec.encode_target(short.render((value, probe)[: len(short)]))
        end = (*rest[0], *tail)
        middle = ids[len(first) : len(ids) - len(end)]
        if ids[: len(first)] == first and ids[len(ids) - len(end) :] == end and middle:
            spellings[value] = middle
    _spell_the_rest(spellings, form)
    _check(codec, form, TokenGuide(given, spellings))
    return TokenGuide(given, spellings)


def _given(codec: TextCodec, form: GuidedText) -> tuple[tuple[Ids, ...], int, Ids]:
    """The ids of the fixed pieces [K + 1], a number that is one token there, and that token.

    The ids of two texts that differ in all their numbers differ at those numbers alone. So a space that the
    tokenizer puts into the number's token is in no fixed piece, and any other one is.
    """
    pairs = [PROBES, *pairwise(form.values)]
    for left, right in pairs:
        one, other = (codec.encode_target(form.render([value] * len(form))) for value in (left, right))
        if len(one) != len(other) or _unknown(codec, one) or _unknown(codec, other):
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


def _unknown(codec: TextCodec, ids: Iterable[int]) -> bool:
    unknown = codec.tokenizer.unk_token_id
    return unknown is not None and unknown in ids


def _spell_the_rest(spellings: dict[int, Ids], form: GuidedText) -> None:
    """Integers that the tokenizer would join with what stands before or behind: digit by digit."""
    for value in form.values:
        digits = [int(digit) for digit in str(value)]
        if value not in spellings and len(digits) > 1 and all(digit in spellings for digit in digits):
            spellings[value] = tuple(token for digit in digits for token in spellings[digit])


def _check(codec: TextCodec, form: GuidedText, guide: TokenGuide) -> None:
    """Every integer must have ids, none of them unknown, and they must read as the text."""
    for value in form.values:
        values = [value] * len(form)
        ids = guide.encode(values)[0] if value in guide.spellings else ()
        wanted = codec.decode(codec.encode_target(form.render(values)))
        if _unknown(codec, ids) or codec.decode(ids).split() != wanted.split():
            raise ConfigError(
                f"prompt.reflect_form=guided: the tokenizer cannot write {value} in a reflection"
                f" ({wanted[:40]!r} reads back as {codec.decode(ids)[:40]!r}). {REMEDY}"
            )
