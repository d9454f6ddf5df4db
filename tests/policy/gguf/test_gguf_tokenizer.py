"""Tokenizers of GGUF files: ids, special tokens, how text is cut, and what is refused."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from repro_rl.errors import DataError
from repro_rl.policy.gguf.header import GgufHeader
from repro_rl.policy.gguf.tokenizer import PROBES, build_tokenizer, stop_ids
from support.gguf_files import (
    CONTROL,
    CONTROL_TYPE,
    CORPUS,
    NORMAL,
    USER_DEFINED,
    byte_level_keys,
    byte_level_vocabulary,
    sentencepiece_keys,
)


def built(tmp_path, keys):
    keys = {name: value for name, value in keys.items() if value is not None}
    header = GgufHeader(tmp_path / "m.gguf", {"general.architecture": "qwen2", **keys}, {})
    return build_tokenizer(header, 256)


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def test_every_token_keeps_its_id(tmp_path):
    keys = byte_level_keys(padding=5)
    tokenizer = built(tmp_path, keys)
    tokens = keys["tokenizer.ggml.tokens"]
    assert len(tokenizer) == len(tokens) - 5  # ids that only fill up the vocabulary are no tokens
    assert tokenizer.get_vocab() == {token: number for number, token in enumerate(tokens[:-5])}
    for text in (*PROBES, *CORPUS):
        assert tokenizer.decode(ids(tokenizer, text)) == text
    begin = len(tokens) - 5 - len(CONTROL) - 1
    assert ids(tokenizer, "<|im_start|><tool><|im_end|>") == [begin + 1, begin + 3, begin + 2]
    assert tokenizer.decode([begin + 1, begin + 3], skip_special_tokens=True) == "<tool>"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|endoftext|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert tokenizer.unk_token is None
    assert tokenizer.model_max_length == 256
    turn = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_control_tokens_may_come_first(tmp_path):
    """SmolLM's order."""
    tokens, merges = byte_level_vocabulary()
    keys = byte_level_keys(pre="smollm") | {
        "tokenizer.ggml.tokens": [*CONTROL, *tokens],
        "tokenizer.ggml.token_type": [CONTROL_TYPE] * 3 + [NORMAL] * len(tokens),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
    }
    tokenizer = built(tmp_path, keys)
    assert ids(tokenizer, "<|im_start|>a<|im_end|>") == [1, tokens.index("a") + 3, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)


# What each name does to numbers, contractions and line breaks; all tokens are single bytes here but the
# merged pieces, so a piece that is not cut shows as one merged token.
@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["go", "\u0120", "\u0120", "12", ",", "\u0120it", "'s", "\u010a", "\u010a", "x"]),
        ("smollm", ["go", "\u0120\u0120", "1", "2", ",", "\u0120it", "'s", "\u010a", "\u010a", "x"]),
        ("qwen2", ["go", "\u0120", "\u0120", "1", "2", ",", "\u0120it", "'s", "\u010a\u010a", "x"]),
        ("llama-bpe", ["go", "\u0120", "\u0120", "12", ",", "\u0120it", "'s", "\u010a\u010a", "x"]),
    ],
)
def test_text_is_cut_as_the_name_says(tmp_path, pre, pieces):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["go", "12", "\u0120\u0120", "\u010a\u010a", "it", "'s", "\u0120it", ",\u0120", "x\u010a"]
    merges = [
        "g o",
        "1 2",
        "\u0120 \u0120",
        "\u010a \u010a",
        "i t",
        "' s",
        "\u0120 it",
        ", \u0120",
        "x \u010a",
    ]
    keys = byte_level_keys(pre=pre) | {
        "tokenizer.ggml.tokens": [*letters, *merged, "<|im_end|>"],
        "tokenizer.ggml.token_type": [NORMAL] * (len(letters) + len(merged)) + [CONTROL_TYPE],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": len(letters) + len(merged),
        "tokenizer.ggml.bos_token_id": None,
        "tokenizer.ggml.padding_token_id": None,
    }
    tokenizer = built(tmp_path, keys)
    assert tokenizer.tokenize("go  12, it's\n\nx") == pieces


def test_gpt_2s_cuts_are_those_of_the_tokenizers_package(tmp_path):
    keys = byte_level_keys(pre="gpt-2")
    tokens, merges = byte_level_vocabulary()
    core = Tokenizer(BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split()) for m in merges]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = built(tmp_path, keys)
    for text in (*PROBES, *CORPUS):
        assert ids(tokenizer, text) == core.encode(text).ids


def test_a_piece_that_is_a_token_needs_no_merges_where_the_name_says_so(tmp_path):
    tokens, merges = byte_level_vocabulary()
    more = {
        "tokenizer.ggml.tokens": [*tokens, "xyz", *CONTROL],
        "tokenizer.ggml.token_type": [NORMAL] * (len(tokens) + 1) + [CONTROL_TYPE] * 3,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": len(tokens) + 1,
        "tokenizer.ggml.padding_token_id": len(tokens) + 1,
        "tokenizer.ggml.eos_token_id": len(tokens) + 3,
    }
    of_llama = built(tmp_path, byte_level_keys(pre="llama-bpe") | more)
    of_qwen = built(tmp_path, byte_level_keys(pre="qwen2") | more)
    assert ids(of_llama, "xyz") == [len(tokens)]
    assert len(ids(of_qwen, "xyz")) == 3


@pytest.mark.parametrize(
    ("pre", "flag", "begins"),
    [("qwen2", None, False), ("qwen2", True, True), ("llama-bpe", None, True), ("llama-bpe", False, False)],
)
def test_the_beginning_of_sequence_token(tmp_path, pre, flag, begins):
    tokenizer = built(tmp_path, byte_level_keys(pre=pre) | {"tokenizer.ggml.add_bos_token": flag})
    assert (ids(tokenizer, "go")[0] == tokenizer.bos_token_id) is begins
    assert tokenizer.bos_token_id not in tokenizer("go", add_special_tokens=False)["input_ids"]
    tokenizer.save_pretrained(tmp_path / "t")
    from transformers import AutoTokenizer

    assert ids(AutoTokenizer.from_pretrained(tmp_path / "t"), "go") == ids(tokenizer, "go")


def test_sentencepiece(tmp_path):
    """By hand: the best score is merged first, spaces are letters, what has no token becomes bytes."""
    keys = sentencepiece_keys()
    tokenizer = built(tmp_path, keys)
    assert tokenizer.tokenize("hello world") == ["\u2581hello", "\u2581world"]
    # he, ll come before hell, hello; "\u2581h" is no token, so "\u2581hello" grows from "\u2581he"
    assert tokenizer.tokenize("hell") == ["\u2581hell"]
    assert tokenizer.tokenize("xhe") == ["\u2581", "x", "he"]
    assert tokenizer.tokenize("h\u00e9") == ["\u2581", "h", "<0xC3>", "<0xA9>"]
    assert ids(tokenizer, "hello")[0] == tokenizer.bos_token_id == 1
    for text in ("hello world", "h\u00e9 x", "10 rod"):
        assert tokenizer.decode(ids(tokenizer, text), skip_special_tokens=True) == text
    bare = built(tmp_path, keys | {"tokenizer.ggml.add_space_prefix": False})
    assert bare.tokenize("hello") == ["hello"]
    assert bare.decode(bare("hello world", add_special_tokens=False)["input_ids"]) == "hello world"


def test_stop_ids():
    keys = {
        "tokenizer.ggml.eos_token_id": 7,
        "tokenizer.ggml.eot_token_id": 9,
        "tokenizer.ggml.eom_token_id": 7,
    }
    assert stop_ids(GgufHeader(None, keys, {})) == [7, 9]
    assert stop_ids(GgufHeader(None, {}, {})) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.model": "bert"}, r"kind 'bert'; gpt2 .* and llama .* are supported"),
        (
            {"tokenizer.ggml.pre": "default"},
            r"'default', which is not known \(tokenizer\.ggml\.pre\); known: gpt-2",
        ),
        ({"tokenizer.ggml.pre": None}, r"cuts text is not named"),
        ({"tokenizer.ggml.tokens": None}, r"no vocabulary"),
        ({"tokenizer.ggml.merges": None}, r"no merges"),
        ({"tokenizer.ggml.merges": ["a"]}, r"merge 'a' is not one of two tokens"),
        ({"tokenizer.ggml.merges": ["a \u0120zz"]}, r"is not one of two tokens into a third"),
        ({"tokenizer.ggml.token_type": [1, 1]}, r"tokens have 2 types"),
        ({"tokenizer.ggml.eos_token_id": 99_999}, r"eos_token is 99999, which is no token"),
        (
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.bos_token_id": None},
            r"it does not name",
        ),
    ],
)
def test_what_is_not_known_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as error:
        built(tmp_path, byte_level_keys() | change)
    assert str(tmp_path / "m.gguf") in str(error.value)


def test_a_token_twice_is_refused(tmp_path):
    keys = byte_level_keys()
    tokens = keys["tokenizer.ggml.tokens"]
    tokens[-1] = tokens[5]
    with pytest.raises(DataError, match="stands there twice"):
        built(tmp_path, keys)


def test_user_defined_tokens_are_found_in_text(tmp_path):
    keys = byte_level_keys()
    assert keys["tokenizer.ggml.token_type"][-1] == USER_DEFINED
    tokenizer = built(tmp_path, keys)
    assert tokenizer.tokenize("go <tool> go")[-4:-2] == ["\u0120", "<tool>"]
