"""Texts to token ids, in which only a chat template's own control tokens are control tokens.

A control token structures a conversation: it begins or ends a text or a turn, or marks a thought or a tool
call. A tokenizer finds them by their spelling. So an observation that spells ``<|im_end|>`` would close the
user's turn, and what follows could forge an answer. Here a text from the environment stays text. A spelled
control token in it is cut in two after its first character, and both halves are tokenised apart. All other
texts get the ids that the tokenizer gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from repro_rl.errors import ConfigError
from repro_rl.types import Ids

MAX_EXPECTED = 1_000  # remembered template texts with their control tokens
# Tokens that a tokenizer adds without calling them special: <think>, <tool_call>, [INST], <|user|>.
_BRACKETED = re.compile(r"[\s\u2581]*(<.+>|\[.+\]|\{.+\}|\|.+\|)\s*", re.DOTALL)
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # stands for one byte of a text
_SPACE = "\u2581"  # SentencePiece's sign for a space


@dataclass(slots=True, frozen=True)
class TextPiece:
    """A part of a text to encode."""

    text: str
    template: bool = False  # written by a chat template: its control tokens count


class TextEncoder:
    """Encodes texts with a tokenizer of transformers, fast or slow.

    Control tokens are the tokenizer's special tokens, added tokens in brackets, and other added tokens that
    occur in ``template_text``. White space, words, bytes and the unknown token are none.
    """

    def __init__(self, tokenizer: Any, template_text: str = ""):
        self.tokenizer = tokenizer
        self.control = control_tokens(tokenizer, template_text)
        self.control_ids = frozenset(self.control.values())
        longest_first = sorted(self.control, key=lambda name: (-len(name), name))
        self._spelled = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._expected: dict[str, Ids] = {"": ()}

    def text_ids(self, text: str) -> Ids:
        """Ids of a text that is not the template's. Raises as ``ids``."""
        if self._spelled.search(text) is None:
            ids = plain_ids(self.tokenizer, text)
            if self.control_ids.isdisjoint(ids):
                return ids
        return self.ids(TextPiece(text))

    def ids(self, *pieces: TextPiece) -> Ids:
        """Ids of the pieces as one text. Raises ConfigError for a text that must become a control token."""
        text = "".join(piece.text for piece in pieces)
        spelled = self._spelled_at(pieces)
        if not spelled:
            ids = plain_ids(self.tokenizer, text)
            if self._control_in(ids) == self._template_control(pieces):
                return ids
        return self._cut_ids(pieces, text, {start + 1 for start in spelled})

    def following(self, context: str, *pieces: TextPiece) -> Ids:
        """Ids that the pieces add behind ``context``, a text of the template.

        Tokenizers with a sign for spaces write the beginning of a text in another way than its middle. Where
        a token reaches over the border, the pieces are encoded alone.
        """
        if context:
            before = TextPiece(context, template=True)
            head, whole = self.ids(before), self.ids(before, *pieces)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return self.ids(*pieces)

    def last_control(self, text: str) -> int:
        """Where the last control token of ``text`` begins; 0 where there is none."""
        return max((match.start() for match in self._spelled.finditer(text)), default=0)

    def _spelled_at(self, pieces: Sequence[TextPiece]) -> list[int]:
        """Where texts that are not the template's spell a control token."""
        found, begin = [], 0
        for piece in pieces:
            if not piece.template:
                found += [begin + match.start() for match in self._spelled.finditer(piece.text)]
            begin += len(piece.text)
        return found

    def _control_in(self, ids: Iterable[int]) -> Ids:
        control = self.control_ids
        return tuple(i for i in ids if i in control)

    def _template_control(self, pieces: Sequence[TextPiece]) -> Ids:
        """The control tokens that the template's pieces hold, whatever texts lie between them."""
        if not any(piece.template for piece in pieces):
            return ()
        text = "".join(piece.text if piece.template else "x" for piece in pieces if piece.text)
        ids = self._expected.get(text)
        if ids is None:
            if len(self._expected) > MAX_EXPECTED:
                self._expected.clear()
            ids = self._expected[text] = self._control_in(plain_ids(self.tokenizer, text))
        return ids

    def _cut_ids(self, pieces: Sequence[TextPiece], text: str, cuts: set[int]) -> Ids:
        """Ids of ``text`` cut at ``cuts``, and wherever else a part becomes a control token."""
        expected = self._template_control(pieces)
        while True:
            borders = [0, *sorted(cuts), len(text)]
            parts = [text[a:b] for a, b in pairwise(borders)]
            ids = tuple(i for part in parts for i in plain_ids(self.tokenizer, part))
            if self._control_in(ids) == expected:
                return ids
            more = self._forged(pieces, text, borders) - cuts
            if not more:
                raise ConfigError(
                    f"A text cannot be written without a control token of the tokenizer of "
                    f"{tokenizer_name(self.tokenizer)}: {text[:200]!r}. Use another tokenizer, or leave the "
                    "text out of the prompts."
                )
            cuts |= more

    def _forged(self, pieces: Sequence[TextPiece], text: str, borders: Sequence[int]) -> set[int]:
        """Where to cut the control tokens that are not the template's, found by their offsets.

        A tokenizer that normalises texts finds more spellings than ours. Slow tokenizers have no offsets.
        """
        if not self.tokenizer.is_fast:
            return set()
        owned: list[bool] = []  # [characters] whether the template wrote it
        for piece in pieces:
            owned += [piece.template] * len(piece.text)
        cuts: set[int] = set()
        for begin, end in pairwise(borders):
            part = text[begin:end]
            encoded = self.tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)
            for token, (left, right) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
                covered = part[left:right]
                left += len(covered) - len(covered.lstrip())  # white space that the token takes in
                right -= len(covered) - len(covered.rstrip())
                own = all(owned[begin + left : begin + right])
                if token in self.control_ids and not own and right - left > 1:
                    cuts.add(begin + left + 1)
        return cuts


def control_tokens(tokenizer: Any, template_text: str = "") -> dict[str, int]:
    """Control tokens by their spelling, see TextEncoder."""
    special = {int(i) for i in tokenizer.all_special_ids}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    # GPT-2 has one token for all. SmolLM2 names one that it never writes: byte-level BPE needs none.
    harmless = (
        {tokenizer.unk_token_id} - ends - {tokenizer.pad_token_id} if _writes_unknown(tokenizer) else set()
    )
    if _has_words_only(tokenizer):
        # It can write its pad token in no other way, and padding structures nothing.
        harmless |= {tokenizer.pad_token_id} - ends
    found = {}
    for number, token in tokenizer.added_tokens_decoder.items():
        name = str(token.content)
        if not name.strip(f" \t\r\n{_SPACE}") or number in harmless or _BYTE.fullmatch(name):
            continue
        marks = bool(_BRACKETED.fullmatch(name)) or (
            len(name) > 1 and not name.strip(_SPACE).isalnum() and name in template_text
        )
        if token.special or number in special or marks:
            found[name] = int(number)
    return found


def _writes_unknown(tokenizer: Any) -> bool:
    """Whether the tokenizer writes its unknown token for text that it does not know."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return True
    model = backend.model
    # Unigram has the token by its number, which Python is not shown.
    return type(model).__name__ == "Unigram" or getattr(model, "unk_token", None) is not None


def _has_words_only(tokenizer: Any) -> bool:
    """Whether a tokenizer knows whole words alone, so that parts of a word are unknown to it."""
    from tokenizers.models import WordLevel

    return bool(tokenizer.is_fast and isinstance(tokenizer.backend_tokenizer.model, WordLevel))


def plain_ids(tokenizer: Any, text: str) -> Ids:
    """Ids of a text, nothing added; what spells a control token is one.

    A fast tokenizer's core is asked directly: for a short prompt what transformers wraps around it takes
    longer. One that would cut or pad is left to transformers, which switches that off.
    """
    core = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    if core is None or core.truncation is not None or core.padding is not None:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return tuple(core.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def begin_ids(tokenizer: Any) -> Ids:
    """What the tokenizer itself writes before a text: its beginning-of-sequence token, or nothing."""
    text = "a b"
    whole, plain = tuple(tokenizer(text)["input_ids"]), plain_ids(tokenizer, text)
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    special = set(tokenizer.all_special_ids)  # the text is written in another way behind the first token
    length = next((n for n, token in enumerate(whole) if token not in special), len(whole))
    return whole[:length]


def token_ids(tokenizer: Any) -> dict[int, str]:
    """Every id that has a token, with its spelling."""
    names = {int(number): str(name) for name, number in tokenizer.get_vocab().items()}
    names.update((int(n), str(token.content)) for n, token in tokenizer.added_tokens_decoder.items())
    return names


def tokenizer_name(tokenizer: Any) -> str:
    """The folder or hub name that a tokenizer was loaded from, for messages."""
    return str(tokenizer.name_or_path) or "this model"
