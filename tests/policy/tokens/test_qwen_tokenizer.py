"""The Qwen tokenizer from its ranks, its control tokens and chat templates."""

from __future__ import annotations

import base64
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.errors import ConfigError, DataError
from repro_rl.policy.tokens.qwen_tokenizer import (
    build_tokenizer,
    byte_letters,
    merges_of,
    qwen_facts,
    read_ranks,
    write_tokenizer,
)
from support.qwen import chat_text, plain, real_ranks, small_ranks, small_tokenizer


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_merges_are_recovered_in_order_of_rank():
    assert merges_of(small_ranks()) == [
        (b"a", b"b"),
        (b"ab", b"c"),
        (b"t", b"h"),
        (b"th", b"e"),
        (b" ", b"the"),
    ]
    with pytest.raises(DataError, match=r"b'xyz' is not made of two earlier tokens"):
        merges_of({**small_ranks(), b"xyz": 261})


def test_a_small_vocabulary_by_hand():
    tokenizer = small_tokenizer("qwen2.5")
    assert list(plain(tokenizer, "abc the")) == [257, 260]
    assert list(plain(tokenizer, "the")) == [259]  # no space before: another token
    assert list(plain(tokenizer, "12")) == [ord("1"), ord("2")]  # digits are never joined
    assert list(plain(tokenizer, "a\u0308b")) == [0xC3, 0xA4, ord("b")]  # NFC: one letter of two bytes
    assert tokenizer.decode([0xC3, 0xA4]) == "ä"
    assert len(byte_letters()) == len(set(byte_letters().values())) == 256


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_decoding_gives_the_text_back(text):
    tokenizer = small_tokenizer("qwen3")
    normal = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(plain(tokenizer, text)) == normal
    if text.isascii():
        assert normal == unicodedata.normalize("NFC", text) == text


def test_bad_rank_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.*cannot be read"):
        read_ranks(tmp_path / "gone")
    ranks = write_ranks(tmp_path / "small", small_ranks())
    assert read_ranks(ranks, expected=None) == small_ranks()
    with pytest.raises(DataError, match=r"261 tokens; Qwen's file has 151,643"):
        read_ranks(ranks)
    (tmp_path / "text").write_text("IQ== 0\nnonsense\n")
    with pytest.raises(DataError, match=r"line 2: a base64 token"):
        read_ranks(tmp_path / "text")
    (tmp_path / "gap").write_text("IQ== 0\nIg== 2\n")
    with pytest.raises(DataError, match=r"line 2: rank 1 and a new token are expected here, rank 2"):
        read_ranks(tmp_path / "gap")
    with pytest.raises(ConfigError, match=r"did you mean 'qwen3'"):
        build_tokenizer(small_ranks(), "qwen-3")


def test_control_tokens_are_the_familys():
    for family, count in (("qwen2.5", 22), ("qwen3", 26)):
        tokenizer = small_tokenizer(family)
        control = list(qwen_facts().control(family))
        assert tokenizer.convert_tokens_to_ids(control) == list(range(261, 261 + count))
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert list(plain(small_tokenizer("qwen3"), "<think>the")) == [261 + 24, 259]
    assert len(plain(small_tokenizer("qwen2.5"), "<think>")) > 1  # plain text for Qwen2.5


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi\nthere"}
YO = {"role": "assistant", "content": "Yo"}
THOUGHTFUL = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nok"}
DEFAULT = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
)
USER_TURN = "<|im_start|>user\nHi\nthere<|im_end|>\n"
OPEN = "<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"


def test_qwen25_turns():
    tokenizer = small_tokenizer("qwen2.5")
    assert chat_text(tokenizer, USER) == DEFAULT + USER_TURN + OPEN
    assert chat_text(tokenizer, SYSTEM, USER, YO, generate=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n" + USER_TURN + OPEN + "Yo<|im_end|>\n"
    )
    assert chat_text(tokenizer, USER, enable_thinking=False) == chat_text(
        tokenizer, USER, enable_thinking=True
    )


def test_qwen3_turns():
    """No system turn of its own; thinking off closes the thought in the generation prompt."""
    tokenizer = small_tokenizer("qwen3")
    assert chat_text(tokenizer, USER) == chat_text(tokenizer, USER, enable_thinking=True) == USER_TURN + OPEN
    assert chat_text(tokenizer, USER, enable_thinking=False) == USER_TURN + OPEN + NO_THOUGHT
    # Its own rule: turns before the last question lose their thoughts, the last answer always shows one.
    assert (
        chat_text(tokenizer, USER, THOUGHTFUL, USER) == USER_TURN + OPEN + "ok<|im_end|>\n" + USER_TURN + OPEN
    )
    last = chat_text(tokenizer, USER, THOUGHTFUL, generate=False)
    assert last == USER_TURN + OPEN + "<think>\nhm\n</think>\n\nok<|im_end|>\n"
    assert chat_text(tokenizer, USER, YO, generate=False) == USER_TURN + OPEN + NO_THOUGHT + "Yo<|im_end|>\n"


@pytest.mark.parametrize("thinking", [True, False])
def test_qwen3_conversations_can_grow_by_appending_only(thinking):
    """``keep_thoughts`` is ours: what was asked and sampled stays a prefix of what is asked next."""
    tokenizer = small_tokenizer("qwen3")
    more = {"enable_thinking": thinking, "keep_thoughts": True}
    answer = THOUGHTFUL if thinking else YO
    first = chat_text(tokenizer, USER, **more)
    second = chat_text(tokenizer, USER, answer, USER, **more)
    assert second.startswith(first + answer["content"] + "<|im_end|>\n")
    assert chat_text(tokenizer, USER, answer, USER, answer, USER, **more).startswith(
        second + answer["content"] + "<|im_end|>\n"
    )


# The real ranks ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = write_tokenizer(real_ranks(), tmp_path_factory.mktemp("qwen") / "tokenizer", "qwen3")
    return AutoTokenizer.from_pretrained(folder)


def test_the_real_tokenizer_has_known_ids(qwen3):
    """Ids that tiktoken gives with the same ranks and pattern (computed once, apart from this code)."""
    assert len(qwen3) == 151_669
    assert list(plain(qwen3, "Hello, world!")) == [9707, 11, 1879, 0]
    assert list(plain(qwen3, "<|endoftext|><|im_start|><|im_end|><think></think>")) == [
        *(151_643, 151_644, 151_645, 151_667, 151_668)
    ]
    text = "<progress>40</progress><action>search[men's size-9 shoes, $45.00]</action>"
    assert list(plain(qwen3, text)) == [
        *(27, 14366, 29, 19, 15, 522, 14366, 1784, 1311, 29, 1836, 58, 5676, 594, 1379, 12, 24, 15294, 11),
        *(400, 19, 20, 13, 15, 15, 30961, 1311, 29),
    ]
    prompt = chat_text(qwen3, {"role": "user", "content": "Hi"}, enable_thinking=False)
    assert list(plain(qwen3, prompt)) == [
        *(151_644, 872, 198, 13_048, 151_645, 198, 151_644, 77_091, 198, 151_667, 271, 151_668, 271)
    ]
