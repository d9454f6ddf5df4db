"""Text to token ids and back: tokenizer, chat template, user turns, stop tokens and the model's limits.

The one way for prompts, conversations, imitation targets and token counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy.base import AnswerTokens
from repro_rl.policy.tokens.chat_template import TEMPLATE_DATE, THINK_TAGS, ChatTemplate
from repro_rl.policy.tokens.control_tokens import (
    TextEncoder,
    TextPiece,
    begin_ids,
    token_ids,
    tokenizer_name,
)
from repro_rl.policy.tokens.qwen_tokenizer import END_OF_TEXT, TURN_END
from repro_rl.types import Ids

ChatSwitch = Literal["auto", "on", "off"]

MAX_DECODED = 200_000  # decoded texts kept
MAX_PROMPT_TOKENS = 4_000_000  # of the encoded prompts kept: about 150 MB of Python integers
MAX_TURN_TOKENS = 1_000_000  # of the encoded later turns kept: about 40 MB
_ANSWER = "answer7f3a"  # stands for the answer before a later turn


class TextCodec:
    """A tokenizer with a model's chat template, stop tokens and limits.

    ``chat``: "auto" uses the tokenizer's chat template when it has one. ``thinking`` is the switch of Qwen3's
    chat template and others; the rest ignore it. ``eos_ids`` are the stop tokens that the model's
    configuration names; those of the tokenizer, of the chat template and the known end-of-turn tokens are
    added. ``positions``: tokens that the model can hold, None where no limit is named. ``vocabulary``: size
    of the model's output layer, None: the tokenizer's.

    Texts are data: no text that is encoded becomes a control token, whatever it spells. Only what the chat
    template writes around it does (see ``control_tokens``).

    Raises ConfigError for ``chat="on"`` without a template, and when there is no stop token at all.
    CheckpointError for a chat template that fails, and for a tokenizer with more tokens than the model.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat: ChatSwitch = "auto",
        thinking: bool = False,
        eos_ids: Iterable[int] = (),
        positions: int | None = None,
        vocabulary: int | None = None,
    ):
        if chat == "on" and not tokenizer.chat_template:
            raise ConfigError(
                "policy.chat is 'on' but the tokenizer has no chat template; use 'auto' or 'off'."
            )
        self.tokenizer = tokenizer
        uses_template = chat != "off" and bool(tokenizer.chat_template)
        self.template = ChatTemplate(tokenizer, thinking) if uses_template else None
        self.thinking, self.positions = thinking, positions
        self.encoder = TextEncoder(tokenizer, self.template.sample if self.template else "")
        self.vocabulary_size = len(tokenizer) if vocabulary is None else vocabulary
        self._prompts = _IdsCache(MAX_PROMPT_TOKENS)
        self._turns = _IdsCache(MAX_TURN_TOKENS)
        self._decoded: dict[Ids, str] = {}
        named = _stop_ids(tokenizer, eos_ids)
        self._end, self._end_in_turn = self._answer_end(named)
        self.eos_ids = frozenset(i for i in (*named, self.end_id) if i < self.vocabulary_size) or named
        self._begin = () if self.template else begin_ids(tokenizer)
        tokens = token_ids(tokenizer)
        if vocabulary is not None:
            self._check_width(tokens)
        pad = tokenizer.pad_token_id
        self.pad_id: int = min(self.eos_ids) if pad is None or pad >= self.vocabulary_size else int(pad)
        self.answer_tokens = answer_tokens(self.eos_ids, tokens, self.vocabulary_size)

    @property
    def chat(self) -> bool:
        """Whether prompts are turns of the chat template."""
        return self.template is not None

    # Encoding -------------------------------------------------------------------------------------

    def encode(self, prompt: str) -> Ids:
        """Ids of a prompt as one user turn, up to where the answer begins. Raises ConfigError for no ids.

        Without a chat template, the prompt alone, begun as the tokenizer itself begins a text.
        """
        ids = self._prompts.get(prompt)
        if ids is None:
            ids = self._encode_prompt(prompt)
            if len(ids) == len(self._begin):
                raise ConfigError("A prompt has no tokens; check the prompt template and the tokenizer.")
            self._prompts.put(prompt, ids)
        return ids

    def next_turn(self, text: str) -> Ids:
        """Ids of a later user turn, beginning with what ends the answer before it.

        Without a chat template a turn is its text alone behind the end-of-text token. Raises ConfigError for
        a template whose conversations cannot grow.
        """
        ids = self._turns.get(text)
        if ids is None:
            ids = self._encode_next_turn(text)
            self._turns.put(text, ids)
        return ids

    def turn_ids(self, text: str, last: int | None) -> Ids:
        """Ids that a user turn adds behind an answer whose last token is ``last``; None: to begin with.

        An answer that ended its turn has brought the end along.
        """
        if last is None:
            return self.encode(text)
        ids = self.next_turn(text)
        return ids[self._end_in_turn :] if last == self.end_id else ids

    def turn_size(self, text: str, *, first: bool = False) -> int:
        """The most tokens that a user turn adds to a conversation."""
        return len(self.encode(text) if first else self.next_turn(text))

    def encode_target(self, text: str) -> Ids:
        """Ids of an answer to imitate, with what the chat template puts behind an answer.

        The marks of thoughts in it are those of the model, where it has such tokens.
        """
        if self.template is None:
            return (*self.plain_ids(text), *self._end)
        pieces = [
            TextPiece(part, template=bool(THINK_TAGS.fullmatch(part)))
            for part in THINK_TAGS.split(self.template.answer(text))
        ]
        opening = self.template.opening
        context = opening[self.encoder.last_control(opening) :]
        return (*self.encoder.following(context, *pieces), *self._end)

    def plain_ids(self, text: str) -> Ids:
        """Ids of a text, nothing added."""
        return self.encoder.text_ids(text)

    def decode(self, ids: Ids) -> str:
        """Text of sampled ids.

        Only the end-of-text token is left out: a sampled pad or unknown token must show, so that the parser
        can object to it.
        """
        text = self._decoded.get(ids)
        if text is None:
            if len(self._decoded) > MAX_DECODED:
                self._decoded.clear()
            body = list(ids[:-1] if ids and ids[-1] in self.eos_ids else ids)
            # Some tokenizers would remove spaces before punctuation: the action would be another one.
            decode = self.tokenizer.decode
            text = str(decode(body, skip_special_tokens=False, clean_up_tokenization_spaces=False))
            self._decoded[ids] = text
        return text

    # About it -------------------------------------------------------------------------------------

    @property
    def end_id(self) -> int:
        """The token that ends an answer to imitate."""
        return self._end[-1]

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of ``prompt`` that become the tokenizer's unknown token; empty when it has none."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown not in self.encode(prompt):
            return []
        return [word for word in prompt.split() if unknown in self.plain_ids(word)]

    def describe(self) -> dict[str, Any]:
        """What prompts and answers depend on, for manifests and the doctor. Tokens by their spelling."""

        def names(ids: Iterable[int]) -> list[str]:
            return [str(self.tokenizer.convert_ids_to_tokens(i)) for i in ids]

        template = self.template
        return {
            "chat_template": template is not None,
            "chat_template_digest": template.digest if template else None,
            "system_message": template.form.system if template else None,
            "contents": template.form.contents if template else None,
            "begin": names(self._begin),
            "end_of_turn": names(self._end),
            "stop_tokens": names(sorted(self.eos_ids)),
            "thought": template.thought if template else None,
            "thinking_switch": template.has_switch if template else None,
            "conversation": (template.conversation_problem if template else None) or "yes",
            "date": f"{TEMPLATE_DATE:%Y-%m-%d}" if template and template.dated else None,
            "ids_without_token": len(self.answer_tokens.unused),
        }

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        self.tokenizer.save_pretrained(folder)

    # Inside ---------------------------------------------------------------------------------------

    def _encode_prompt(self, prompt: str) -> Ids:
        if self.template is None:
            return (*self._begin, *self.plain_ids(prompt))
        left, core, right = _outer_space(prompt)
        turn = self.template.first_turn(left, right)
        return self.encoder.ids(TextPiece(turn.before, True), TextPiece(core), TextPiece(turn.after, True))

    def _encode_next_turn(self, text: str) -> Ids:
        if self.template is None:
            return (*self._end, *self.plain_ids(text))
        left, core, right = _outer_space(text)
        turn = self.template.next_turn(left, right)
        pieces = (TextPiece(turn.before, True), TextPiece(core), TextPiece(turn.after, True))
        return self.encoder.following(_ANSWER, *pieces)

    def _answer_end(self, named: frozenset[int]) -> tuple[Ids, int]:
        """What ends an answer, and how many of these tokens a later turn begins with.

        The template's own end of turn: all it writes behind an answer up to the first control token. A
        template without any leaves it to the end-of-text token.
        """
        eos = self.tokenizer.eos_token_id
        fallback = (int(eos) if eos is not None else min(named),)
        if self.template is None:
            return fallback, 1
        ids = self.encoder.following(_ANSWER, TextPiece(self.template.closing, True))
        begins = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id != eos else None
        for count, token in enumerate(ids, 1):
            if token == begins:
                break
            if token in self.encoder.control_ids or token in named:
                return ids[:count], count
        return fallback, 0

    def _check_width(self, tokens: dict[int, str]) -> None:
        """Raises CheckpointError for a token that can occur and that the model has no embedding for."""
        size = self.vocabulary_size
        beyond = {number: name for number, name in tokens.items() if number >= size}
        if not beyond:
            return
        used = {*self._begin, *self._end, *self.encode("x")}
        if self.template is not None and self.template.conversation_problem is None:
            used.update(self.next_turn("x"))
        for number, name in sorted(beyond.items()):
            if number in used or number not in self.encoder.control_ids:
                raise CheckpointError(
                    f"The tokenizer of {tokenizer_name(self.tokenizer)} has the token {name!r} (id "
                    f"{number}), but the model has embeddings for {size} ids only. Use the model's own "
                    "tokenizer, or add embeddings (resize_token_embeddings of transformers) and train them."
                )


def answer_tokens(stop: frozenset[int], tokens: Collection[int], size: int) -> AnswerTokens:
    """What can be sampled of a model with ``size`` outputs whose tokenizer has ``tokens``."""
    known = {number for number in tokens if number < size} | stop
    limit = max(known, default=-1) + 1
    holes = tuple(sorted(set(range(limit)) - known)) if len(known) < limit else ()
    return AnswerTokens(stop, limit, max(size, limit), holes)


@dataclass(slots=True)
class Conversation:
    """The ids of one conversation so far: user turns as encoded, answers as sampled.

    Nothing is tokenised twice: an answer stays the ids that were sampled. A user turn adds the ids that the
    chat template puts between two answers (end of turn, role headers, generation prompt). A template may
    write earlier answers differently in hindsight: Qwen3's removes their thoughts. We keep what was sampled
    (decision D36). Otherwise no conversation could be trained on as it was sampled, nor its KV cache be kept.
    """

    codec: TextCodec
    ids: list[int] = field(default_factory=list)
    _last: int | None = None  # last token of the newest answer; None before the first one

    def turn(self, text: str) -> Ids:
        """The ids that a user turn would add.

        An answer that ended with the end-of-turn token has brought it along. Behind one that was cut off, or
        that ended with another end token, it is part of the turn (and so never trained on).
        """
        return self.codec.turn_ids(text, self._last)

    def add(self, turn: Ids, answer: Ids) -> None:
        """Append a user turn and the answer to it (ids as sampled)."""
        self.ids += turn
        self.ids += answer
        self._last = answer[-1] if answer else -1


def _stop_ids(tokenizer: Any, model_ids: Iterable[int]) -> frozenset[int]:
    ids = set(model_ids)
    eos = tokenizer.eos_token_id
    if eos is not None:
        ids.add(int(eos))
    # A Qwen base checkpoint names only <|endoftext|>, its chat template ends turns with <|im_end|>.
    added = tokenizer.get_added_vocab()
    ids.update(added[name] for name in (TURN_END, END_OF_TEXT) if name in added)
    if not ids:
        raise ConfigError("The model names no end-of-text token; set eos_token in its tokenizer.")
    return frozenset(ids)


def _outer_space(text: str) -> tuple[str, str, str]:
    """White space at the beginning, the text between, and white space at the end."""
    core = text.strip()
    if not core:
        return text, "", ""
    begin = text.index(core)
    return text[:begin], core, text[begin + len(core) :]


class _IdsCache:
    """Ids by text, emptied once it holds more than ``limit`` tokens."""

    def __init__(self, limit: int):
        self._limit, self._tokens = limit, 0
        self._ids: dict[str, Ids] = {}

    def get(self, text: str) -> Ids | None:
        return self._ids.get(text)

    def put(self, text: str, ids: Ids) -> None:
        if self._tokens > self._limit:
            self._ids.clear()
            self._tokens = 0
        self._ids[text] = ids
        self._tokens += len(ids)
