"""The Qwen family's tokenizer from its published BPE ranks, without a download.

The ranks file (``qwen.tiktoken``: one base64 token and its rank a line) is the user's. Vocabulary and merges
are recovered from it; pre-tokenizer, control tokens and chat templates are facts about the models, kept in
``qwen_tokenizer.yaml``. Qwen2, 2.5 and 3 share ranks and pre-tokenizer; they differ in control tokens and
chat template.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repro_rl.errors import ConfigError, DataError, did_you_mean
from repro_rl.files import TABLE, read_bytes, read_yaml

BASE_TOKENS = 151_643  # the rank file of the family; control tokens follow
END_OF_TEXT, TURN_END = "<|endoftext|>", "<|im_end|>"


@dataclass(frozen=True, slots=True)
class QwenFacts:
    """What ``qwen_tokenizer.yaml`` says of the family's tokenizers."""

    __pydantic_config__ = TABLE
    pattern: str  # of the pieces that text is cut into before merging
    special: tuple[str, ...]  # the first control tokens
    plain: tuple[str, ...]  # those that follow
    qwen3_only: tuple[str, ...]  # and those from Qwen3 on
    chat: dict[str, str]  # family ("qwen2.5", "qwen3") -> chat template (Jinja2)

    def control(self, family: str) -> tuple[str, ...]:
        """A family's control tokens in the order of their ids, the special ones first."""
        return self.special + self.plain + (self.qwen3_only if family == "qwen3" else ())


@cache
def qwen_facts() -> QwenFacts:
    return read_yaml(Path(__file__).with_suffix(".yaml"), QwenFacts)


def read_ranks(path: str | Path, expected: int | None = BASE_TOKENS) -> dict[bytes, int]:
    """Token bytes -> rank. Raises DataError naming file and line; ``expected``: how many there must be."""
    ranks: dict[bytes, int] = {}
    try:
        lines = read_bytes(Path(path)).splitlines()
    except DataError as error:
        raise DataError(f"{error}; give Qwen's qwen.tiktoken") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank_text = line.split()
            value = base64.b64decode(token, validate=True)
            rank = int(rank_text)
        except (ValueError, binascii.Error) as error:
            raise DataError(
                "a base64 token and its rank are needed on every line", file=path, record=f"line {number}"
            ) from error
        if value in ranks or rank != len(ranks):
            raise DataError(
                f"rank {len(ranks)} and a new token are expected here, rank {rank} stands there",
                file=path,
                record=f"line {number}",
            )
        ranks[value] = rank
    if expected is not None and len(ranks) != expected:
        raise DataError(
            f"{len(ranks):,} tokens; Qwen's file has {expected:,}. Is it cut off, or another model's?",
            file=path,
        )
    return ranks


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges in order of their rank: what each longer token is made of under the ranks before it.

    Raises DataError for a token that two earlier ones do not make (the file is no BPE vocabulary).
    """
    merges = []
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        parts = _split(token, ranks, rank)
        if len(parts) != 2:
            raise DataError(f"token {token!r} is not made of two earlier tokens", field=f"rank {rank}")
        merges.append((parts[0], parts[1]))
    return merges


def _split(token: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """Byte-pair encoding of ``token`` with the tokens of rank smaller than ``below``."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, index = below, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], below)
            if rank < best:
                best, index = rank, i
        if index < 0:
            break
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in byte-level BPE files (GPT-2's table).

    Printable Latin-1 bytes stand for themselves; the others, in order, for the letters from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {**{b: chr(b) for b in plain}, **{b: chr(0x100 + i) for i, b in enumerate(others)}}


def build_tokenizer(ranks: dict[bytes, int], family: str) -> Any:
    """A Hugging Face fast tokenizer over ``ranks`` with the family's control tokens and chat template.

    Text is normalised to NFC, so ``decode(encode(x)) == NFC(x)``. Raises ConfigError for an unknown family.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    facts = qwen_facts()
    if family not in facts.chat:
        raise ConfigError(f"Unknown Qwen family {family!r}{did_you_mean(family, facts.chat)}")
    letters = byte_letters()

    def as_letters(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    core = Tokenizer(
        BPE(
            {as_letters(token): rank for token, rank in ranks.items()},
            [(as_letters(left), as_letters(right)) for left, right in merges_of(ranks)],
        )
    )
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(facts.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    for names, special in ((facts.special, True), (facts.control(family)[len(facts.special) :], False)):
        core.add_tokens([AddedToken(name, special=special, normalized=False) for name in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=facts.chat[family],
        clean_up_tokenization_spaces=False,
        model_max_length=32_768,
    )


def write_tokenizer(ranks_file: str | Path, folder: Path, family: str) -> Path:
    """Build the tokenizer of ``family`` from a ranks file into ``folder`` (written whole or not at all)."""
    from repro_rl.files import write_folder

    tokenizer = build_tokenizer(read_ranks(ranks_file), family)
    write_folder(folder, tokenizer.save_pretrained)
    return folder
