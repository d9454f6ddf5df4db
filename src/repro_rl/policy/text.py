"""Text to token ids and back: tokenizer, chat template, user turns, stop tokens and the model's limits.

The one way for prompts, conversations, imitation targets and token counts. Nothing here needs weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from repro_rl.errors import ConfigError
from repro_rl.policy.qwen_tokenizer import END_OF_TEXT, TURN_END
from repro_rl.types import Ids

ChatSwitch = Literal["auto", "on", "off"]

MAX_DECODED = 200_000  # decoded texts kept
MAX_PROMPT_TOKENS = 4_000_000  # of the encoded prompts kept: about 150 MB of Python integers
MAX_TURN_TOKENS = 1_000_000  # of the encoded later turns kept: about 40 MB
_ANSWER = "answer7f3a"  # stands for an answer while the template is asked what follows one


class TextCodec:
    """A tokenizer with a model's chat template, stop tokens and limits.

    ``chat``: "auto" uses the tokenizer's chat template when it has one. ``thinking`` is Qwen3's switch
    (``enable_thinking`` of its chat template); other templates ignore it. ``eos_ids`` are the stop tokens
    that the model's configuration names; those of the tokenizer and the known end-of-turn tokens are added.
    ``positions``: tokens that the model can hold, None where no limit is named. ``vocabulary``: size of the
    model's output layer, None: the tokenizer's.

    Raises ConfigError for ``chat="on"`` without a template, and when there is no stop token at all.
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
        self.chat = chat != "off" and bool(tokenizer.chat_template)
        self.thinking = thinking
        self.positions = positions
        self.eos_ids = _stop_ids(tokenizer, eos_ids)
        pad = tokenizer.pad_token_id
        self.pad_id: int = min(self.eos_ids) if pad is None else int(pad)
        self.vocabulary_size = len(tokenizer) if vocabulary is None else vocabulary
        self._prompts = _IdsCache(MAX_PROMPT_TOKENS)
        self._turns = _IdsCache(MAX_TURN_TOKENS)
        self._decoded: dict[Ids, str] = {}

    def encode(self, prompt: str) -> Ids:
        """Ids of a prompt as one user turn, up to where the answer begins. Raises ConfigError for no ids."""
        ids = self._prompts.get(prompt)
        if ids is None:
            ids = self.plain_ids(self.render(prompt, self.thinking) if self.chat else prompt)
            if not ids:
                raise ConfigError("A prompt has no tokens; check the prompt template and the tokenizer.")
            self._prompts.put(prompt, ids)
        return ids

    def render(self, prompt: str, thinking: bool) -> str:
        """The text of a prompt as one user turn of the chat template, up to where the answer begins."""
        return self._template([{"role": "user", "content": prompt}], thinking)

    def next_turn(self, text: str) -> Ids:
        """Ids of a later user turn, beginning with the end-of-turn token of the answer before it.

        Without a chat template a turn is its text alone after that token. Raises ConfigError for a template
        that leaves out answers.
        """
        ids = self._turns.get(text)
        if ids is None:
            ids = self._encode_next_turn(text)
            self._turns.put(text, ids)
        return ids

    def turn_size(self, text: str, *, first: bool = False) -> int:
        """The most tokens that a user turn adds to a conversation."""
        return len(self.encode(text) if first else self.next_turn(text))

    def encode_target(self, text: str) -> Ids:
        """Ids of an answer to imitate, with the end-of-turn token."""
        return (*self.plain_ids(text), self.end_id)

    def plain_ids(self, text: str) -> Ids:
        """Ids of a text, nothing added."""
        return plain_ids(self.tokenizer, text)

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
            text = str(self.tokenizer.decode(body, skip_special_tokens=False))
            self._decoded[ids] = text
        return text

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of ``prompt`` that become the tokenizer's unknown token; empty when it has none."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown not in self.encode(prompt):
            return []
        return [word for word in prompt.split() if unknown in self.plain_ids(word)]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        self.tokenizer.save_pretrained(folder)

    @property
    def end_id(self) -> int:
        """The token that ends an answer to imitate."""
        turn_end = self.tokenizer.get_added_vocab().get(TURN_END) if self.chat else None
        if turn_end is not None:
            return int(turn_end)
        eos = self.tokenizer.eos_token_id
        return int(eos) if eos is not None else min(self.eos_ids)

    def _template(self, messages: list[dict[str, str]], thinking: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, enable_thinking=thinking
            )
        )

    def _encode_next_turn(self, text: str) -> Ids:
        if not self.chat:
            return (self.end_id, *self.plain_ids(text))
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": text},
        ]
        _, answer, rest = self._template(messages, self.thinking).partition(_ANSWER)
        ids = self.plain_ids(rest)
        if not answer or not ids:
            raise ConfigError(
                "The tokenizer's chat template does not show earlier answers, so a conversation cannot grow; "
                "use prompt.context=window or policy.chat=off."
            )
        return ids


@dataclass(slots=True)
class Conversation:
    """The ids of one conversation so far: user turns as encoded, answers as sampled.

    Nothing is tokenised twice: an answer stays the ids that were sampled, and a user turn adds the ids that
    the chat template puts between that answer and the next one (end of turn, role headers, generation
    prompt). A template may write earlier answers differently in hindsight: Qwen3's removes their thoughts. We
    keep what was sampled (decision D36). Otherwise no conversation could be trained on as it was sampled, nor
    its KV cache be kept.
    """

    text: TextCodec
    ids: list[int] = field(default_factory=list)
    _last: int | None = None  # last token of the newest answer; None before the first one

    def turn(self, text: str) -> Ids:
        """The ids that a user turn would add.

        An answer that ended with the end-of-turn token has brought it along. Behind one that was cut off, or
        that ended with another end token, it is part of the turn (and so never trained on).
        """
        if self._last is None:
            return self.text.encode(text)
        ids = self.text.next_turn(text)
        return ids[1:] if ids[0] == self._last else ids

    def add(self, turn: Ids, answer: Ids) -> None:
        """Append a user turn and the answer to it (ids as sampled)."""
        self.ids += turn
        self.ids += answer
        self._last = answer[-1] if answer else -1


def load_text(
    path: str | Path,
    *,
    chat: ChatSwitch = "auto",
    thinking: bool = False,
    local_only: bool | None = None,
    trust_remote_code: bool = False,
) -> TextCodec:
    """The codec of a Hugging Face folder or hub name, without its weights.

    An adapter's folder gives its own tokenizer, where it has one, with the limits of the model it belongs on;
    a folder with a tokenizer alone gives one without limits. ``local_only``: of a hub name, look only into
    the local cache; None: where the hub cannot be reached. Raises CheckpointError when there is nothing to
    load.
    """
    from transformers import GenerationConfig

    from repro_rl.policy.hub import files_of
    from repro_rl.policy.lora import is_adapter
    from repro_rl.policy.model_source import find_source
    from repro_rl.policy.pretrained import load_model_config, load_tokenizer

    folder = Path(path)
    bare = folder.is_dir() and not is_adapter(folder) and not (folder / "config.json").exists()
    if bare:  # a tokenizer alone
        return TextCodec(
            load_tokenizer(path, trust_remote_code=trust_remote_code), chat=chat, thinking=thinking
        )
    source = find_source(path)
    with source.explained():
        tokenizer = load_tokenizer(
            source.tokenizer, trust_remote_code=trust_remote_code, local_only=local_only
        )
        config = load_model_config(source.model, trust_remote_code=trust_remote_code, local_only=local_only)
    try:
        generation = GenerationConfig.from_pretrained(files_of(source.model, local_only=local_only))
    except OSError:  # a model folder need not have one
        generation = None
    return codec_of(tokenizer, config.get_text_config(), generation, chat=chat, thinking=thinking)


def codec_of(
    tokenizer: Any, config: Any, generation_config: Any, *, chat: ChatSwitch = "auto", thinking: bool = False
) -> TextCodec:
    """The codec of a model with these configurations of transformers; ``generation_config`` may be None."""
    # Not every architecture has a limit; MPT's has a name of its own.
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    vocabulary = getattr(config, "vocab_size", None)
    return TextCodec(
        tokenizer,
        chat=chat,
        thinking=thinking,
        eos_ids=model_eos_ids(config, generation_config),
        positions=int(limit) if limit else None,
        vocabulary=int(vocabulary) if vocabulary else None,
    )


def model_eos_ids(config: Any, generation_config: Any = None) -> set[int]:
    """The stop tokens that a model's configuration and generation configuration name, perhaps none."""
    ids: set[int] = set()
    for source in (config, generation_config):
        value = getattr(source, "eos_token_id", None)  # both are optional
        if value is not None:
            ids.update(value if isinstance(value, (list, tuple)) else [value])
    return ids


def plain_ids(tokenizer: Any, text: str) -> Ids:
    """Ids of a text, nothing added.

    A fast tokenizer's core is asked directly: for a short prompt what transformers wraps around it takes
    longer. One that would cut or pad is left to transformers, which switches that off.
    """
    core = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    if core is None or core.truncation is not None or core.padding is not None:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return tuple(core.encode_batch_fast([text], add_special_tokens=False)[0].ids)


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
