"""The tokenizer that a GGUF file describes, as a Hugging Face fast tokenizer with the same ids.

A file holds tokens, their types, merges or scores, special ids and a chat template. Of how text is cut before
merging it has only a name; ``tokenizer.yaml`` says what the names mean. What we do not know is an error. Text
that is cut in another way becomes other ids than the model was trained on, and nothing else would show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repro_rl.errors import DataError
from repro_rl.files import TABLE, read_yaml
from repro_rl.policy.gguf.header import INSTEAD, GgufHeader

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
SPACE = "\u2581"  # SentencePiece's letter for a space
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
STOPS = ("eos", "eot", "eom")  # ids in the metadata that end an answer
PROBES = (  # texts that tokenizers cut differently
    "You open the drawer 12. In it, you see a soap bar 1, and don't  know\tit's 3.50!\n\n  > go to x_1\n",
    " leading, CamelCase HTTPServer's 1234567 (a+b)*c == {'k': [1]}; caf\u00e9 \u4f60\u597d \U0001f642 ...",
)


@dataclass(frozen=True, slots=True)
class Split:
    """How text is cut before merging, see ``tokenizer.yaml``."""

    __pydantic_config__ = TABLE
    names: tuple[str, ...]  # in tokenizer.ggml.pre
    pattern: str  # a regular expression, or "gpt2"
    digits: bool = False  # every digit is a piece
    whole: bool = False  # a piece that is a token is not merged from smaller ones
    nfc: bool = False  # text is normalised to NFC first
    bos: bool = False  # the default of tokenizer.ggml.add_bos_token


@dataclass(frozen=True, slots=True)
class _Table:
    """What ``tokenizer.yaml`` holds."""

    __pydantic_config__ = TABLE
    splits: tuple[Split, ...]  # all known ways to cut text


@cache
def splits() -> dict[str, Split]:
    """The known ways to cut text by their names."""
    table = read_yaml(Path(__file__).with_suffix(".yaml"), _Table)
    return {name: split for split in table.splits for name in split.names}


def build_tokenizer(header: GgufHeader, positions: int) -> Any:
    """The tokenizer of a GGUF file; ``positions``: tokens that the model can hold.

    Every id that stands for text has the file's own token; ids that only fill up the vocabulary ("[PAD7]")
    have none. Raises DataError naming the file for an unknown kind of tokenizer or way to cut text, and for a
    vocabulary that contradicts itself.
    """
    from transformers import PreTrainedTokenizerFast

    vocabulary = _Vocabulary(header)
    kind = header.metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        core, bos = _byte_level(vocabulary)
    elif kind == "llama":
        core, bos = _sentencepiece(vocabulary), True
    else:
        raise DataError(
            f"its tokenizer is of the kind {kind!r}; gpt2 (byte-level BPE) and llama (SentencePiece) are "
            f"supported. {INSTEAD}",
            file=header.path,
        )
    vocabulary.add_special(core)
    special = vocabulary.special()
    if header.metadata.get("tokenizer.ggml.add_bos_token", bos):
        _add_beginning(core, vocabulary, special.get("bos_token"))
    _check_ids(core, vocabulary)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        chat_template=header.metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=positions,
        **special,
    )


def stop_ids(header: GgufHeader) -> list[int]:
    """The ids that end an answer, as the file names them; the end-of-sequence token first."""
    found = [header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in STOPS]
    return list(dict.fromkeys(int(value) for value in found if value is not None))


def special_id(header: GgufHeader, name: str) -> int | None:
    """The id of a special token such as "bos"; None where the file names none."""
    value = header.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return None if value is None else int(value)


class _Vocabulary:
    """Tokens by id with their types, checked."""

    def __init__(self, header: GgufHeader):
        self.header = header
        self.tokens: list[str] = self._list("tokens", str) or []
        if not self.tokens:
            raise self.broken("it has no vocabulary (tokenizer.ggml.tokens)")
        self.types: list[int] = self._list("token_type", int) or [NORMAL] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise self.broken(f"{len(self.tokens):,} tokens have {len(self.types):,} types")
        self.ids = {token: number for number, token in enumerate(self.tokens) if not self._fills(number)}
        if len(self.ids) != sum(not self._fills(number) for number in range(len(self.tokens))):
            raise self.broken("a token of its vocabulary stands there twice")

    def _list(self, name: str, kind: type) -> list[Any] | None:
        values = self.header.metadata.get(f"tokenizer.ggml.{name}")
        if values is not None and not (
            isinstance(values, list) and all(isinstance(value, kind) for value in values)
        ):
            raise self.broken(f"tokenizer.ggml.{name} is no list of {kind.__name__}")
        return values

    def _fills(self, number: int) -> bool:
        """Whether an id has no text: llama.cpp's converter calls it "[PAD<id>]"."""
        kind, token = self.types[number], self.tokens[number]
        return kind in (UNUSED, USER_DEFINED) and token == f"[PAD{number}]"

    def special(self) -> dict[str, str]:
        """The special tokens that the file names, under transformers' names."""
        found = {}
        for name, key in SPECIAL.items():
            number = special_id(self.header, key)
            if number is not None:
                if number not in range(len(self.tokens)) or self._fills(number):
                    raise self.broken(f"its {name} is {number}, which is no token")
                found[name] = self.tokens[number]
        return found

    def add_special(self, core: Any) -> None:
        """Tokens that are found in the text before it is cut: control tokens and those users defined."""
        from tokenizers import AddedToken

        control = {CONTROL, UNKNOWN}
        named = set(self.special().values())
        kinds = [(token, self.types[number]) for token, number in self.ids.items()]
        special = [token for token, kind in kinds if kind in control or token in named]
        plain = [token for token, kind in kinds if kind == USER_DEFINED and token not in named]
        core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
        core.add_tokens([AddedToken(token, normalized=False) for token in plain])

    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens in the order in which they are merged."""
        lines = self._list("merges", str)
        if not lines:
            raise self.broken("its vocabulary has no merges (tokenizer.ggml.merges)")
        pairs = [tuple(line.split(" ")) for line in lines]
        for pair in pairs:
            if len(pair) != 2 or not {*pair, "".join(pair)} <= self.ids.keys():
                raise self.broken(f"the merge {' '.join(pair)!r} is not one of two tokens into a third")
        return [(left, right) for left, right in pairs]

    def scores(self) -> list[float]:
        """SentencePiece's scores by id: the larger, the earlier a token is merged."""
        values = self._list("scores", float)
        if values is None or len(values) != len(self.tokens):
            raise self.broken("its vocabulary has no score for every token (tokenizer.ggml.scores)")
        return values

    def broken(self, what: str) -> DataError:
        return DataError(f"{what}; convert the model again with a newer llama.cpp", file=self.header.path)


def _byte_level(vocabulary: _Vocabulary) -> tuple[Any, bool]:
    """Byte-level BPE, and whether texts begin with the beginning-of-sequence token by default."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    name = vocabulary.header.metadata.get("tokenizer.ggml.pre")
    split = splits().get(str(name))
    if split is None:
        which = "not named" if name is None else f"{name!r}, which is not known"
        raise DataError(
            f"how its tokenizer cuts text is {which} (tokenizer.ggml.pre); known: {', '.join(splits())}. "
            f"{INSTEAD}",
            file=vocabulary.header.path,
        )
    core = Tokenizer(BPE(vocabulary.ids, vocabulary.merges(), ignore_merges=split.whole))
    builtin = split.pattern == "gpt2"
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if split.digits else []
    steps += [] if builtin else [pre_tokenizers.Split(Regex(split.pattern), "isolated")]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=builtin))
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    if split.nfc:
        core.normalizer = normalizers.NFC()
    return core, split.bos


def _sentencepiece(vocabulary: _Vocabulary) -> Any:
    """SentencePiece's BPE: spaces as letters, bytes for what has no token, merges from the scores."""
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    unknown = special_id(vocabulary.header, "unknown")
    core = Tokenizer(
        BPE(
            vocabulary.ids,
            list(_scored_merges(vocabulary)),
            unk_token=vocabulary.tokens[unknown if unknown is not None else 0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = bool(vocabulary.header.metadata.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefix else spaces
    decoding: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence(decoding + ([decoders.Strip(" ", 1, 0)] if prefix else []))
    return core


def _scored_merges(vocabulary: _Vocabulary) -> Iterator[tuple[str, str]]:
    """Every pair of tokens that makes a third, by the score of the third.

    SentencePiece merges the adjacent pair whose union has the best score. Equal scores do not occur among
    trained tokens; the order of ids decides where they do.
    """
    ids, scores = vocabulary.ids, vocabulary.scores()
    mergeable = [
        (token, number) for token, number in ids.items() if vocabulary.types[number] in (NORMAL, USER_DEFINED)
    ]
    for token, _ in sorted(mergeable, key=lambda item: (-scores[item[1]], item[1])):
        for cut in range(1, len(token)):
            if token[:cut] in ids and token[cut:] in ids:
                yield token[:cut], token[cut:]


def _add_beginning(core: Any, vocabulary: _Vocabulary, token: str | None) -> None:
    """Let encoded texts begin with the beginning-of-sequence token."""
    from tokenizers import processors

    if token is None:
        raise vocabulary.broken(
            "texts begin with a token that it does not name (tokenizer.ggml.add_bos_token)"
        )
    core.post_processor = processors.TemplateProcessing(
        single=[token, "$A"],
        pair=[token, "$A", token, "$B:1"],
        special_tokens=[(token, vocabulary.ids[token])],
    )


def _check_ids(core: Any, vocabulary: _Vocabulary) -> None:
    """Raises DataError where the tokenizer gives a token another id than the file."""
    built = core.get_vocab(with_added_tokens=True)
    wrong = [token for token, number in vocabulary.ids.items() if built.get(token) != number]
    if wrong or len(built) != len(vocabulary.ids):
        raise vocabulary.broken(f"its tokens cannot keep their ids (the first: {wrong[:1] or 'new ones'})")


def check_written(tokenizer: Any, folder: Path, file: Path) -> None:
    """Raises DataError when what transformers loads from ``folder`` encodes other ids than ``tokenizer``.

    For some architectures transformers puts a tokenizer's parts together anew, by its own idea of them.
    """
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder)
    texts: Sequence[str] = (*PROBES, *(f"a{token}b" for token in tokenizer.all_special_tokens))
    for text in texts:
        if loaded(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise DataError(
                f"this transformers loads its tokenizer with other ids ({text!r}); use another version",
                file=file,
            )
