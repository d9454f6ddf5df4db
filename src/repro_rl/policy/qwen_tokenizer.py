"""The Qwen family's tokenizer from its published BPE ranks, without a download.

The ranks file (``qwen.tiktoken``: one base64 token and its rank a line) is the user's. Vocabulary and merges
are recovered from it; pre-tokenizer, control tokens and chat templates are facts about the models, written
here in our own words. Qwen2, 2.5 and 3 share ranks and pre-tokenizer; they differ in control tokens and chat
template.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any, Literal, get_args

from repro_rl.errors import ConfigError, DataError, did_you_mean

Family = Literal["qwen2.5", "qwen3"]
FAMILIES: tuple[Family, ...] = get_args(Family)

BASE_TOKENS = 151_643  # the rank file of the family; control tokens follow
# How text is cut before merging: contractions, words with one leading sign, single digits, runs of signs,
# line breaks, white space.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Ids from 151643 on, in order. Only the first fourteen count as special (left out by skip_special_tokens).
CONTROL = (
    *(END_OF_TEXT, TURN_START, TURN_END),
    *(f"<|{name}_{side}|>" for name in ("object_ref", "box", "quad", "vision") for side in ("start", "end")),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),  # from Qwen3 on
)
SPECIAL = 14
QWEN3_ONLY = 4

# Turns of text only (no tools), as one string: the same token sequences as the models' own templates give.
# ``keep_thoughts`` is ours: every assistant turn stays as it was sampled, so that a conversation only grows.
_QWEN25_CHAT = (
    "{% if not messages or messages[0].role != 'system' %}<|im_start|>system\n"
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_QWEN3_CHAT = (
    "{% set quiet = enable_thinking is defined and enable_thinking is false %}"
    "{% set asked = namespace(last=messages | length - 1) %}"
    "{% for turn in messages %}{% if turn.role == 'user' %}{% set asked.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% if turn.role != 'assistant' %}{{ turn.content }}"
    "{% elif keep_thoughts is defined and keep_thoughts %}"
    "{% if quiet and '</think>' not in turn.content %}<think>\n\n</think>\n\n{% endif %}{{ turn.content }}"
    "{% else %}{% set parts = turn.content.split('</think>') %}"
    "{% set said = parts[-1].lstrip('\n') if parts | length > 1 else turn.content %}"
    "{% set thought = parts[0].rstrip('\n').split('<think>')[-1].strip('\n') if parts | length > 1 else '' %}"
    "{% if loop.index0 > asked.last and (loop.last or thought) %}<think>\n{{ thought }}\n</think>\n\n"
    "{{ said.lstrip('\n') }}{% else %}{{ said }}{% endif %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if quiet %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
CHAT: dict[str, str] = {"qwen2.5": _QWEN25_CHAT, "qwen3": _QWEN3_CHAT}


def read_ranks(path: str | Path, expected: int | None = BASE_TOKENS) -> dict[bytes, int]:
    """Token bytes -> rank. Raises DataError naming file and line; ``expected``: how many there must be."""
    ranks: dict[bytes, int] = {}
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"it cannot be read ({error}); give Qwen's qwen.tiktoken", file=path) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            value = base64.b64decode(token, validate=True)
            place = int(rank)
        except (ValueError, binascii.Error) as error:
            raise DataError(
                "a base64 token and its rank are needed on every line", file=path, record=f"line {number}"
            ) from error
        if value in ranks or place != len(ranks):
            raise DataError(
                f"rank {len(ranks)} and a new token are expected here, rank {place} stands there",
                file=path,
                record=f"line {number}",
            )
        ranks[value] = place
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
        best, place = below, -1
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], below)
            if rank < best:
                best, place = rank, i
        if place < 0:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
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

    if family not in FAMILIES:
        raise ConfigError(f"Unknown Qwen family {family!r}{did_you_mean(family, FAMILIES)}")
    letters = byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    core = Tokenizer(
        BPE(
            {written(token): rank for token, rank in ranks.items()},
            [(written(left), written(right)) for left, right in merges_of(ranks)],
        )
    )
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    names = CONTROL if family == "qwen3" else CONTROL[:-QWEN3_ONLY]
    core.add_tokens([AddedToken(name, special=i < SPECIAL, normalized=False) for i, name in enumerate(names)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT[family],
        clean_up_tokenization_spaces=False,
        model_max_length=32_768,
    )


def write_tokenizer(ranks_file: str | Path, folder: Path, family: str) -> Path:
    """Build the tokenizer of ``family`` from a ranks file into ``folder`` (written whole or not at all)."""
    from repro_rl.files import write_folder

    tokenizer = build_tokenizer(read_ranks(ranks_file), family)
    write_folder(folder, tokenizer.save_pretrained)
    return folder
