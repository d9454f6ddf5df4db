"""The Qwen tokenizer from its ranks, chat templates, thinking, stop tokens, and the shapes."""

from __future__ import annotations

import base64
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import run_command
from repro_rl.config import load_config
from repro_rl.errors import ConfigError, DataError, PreflightError
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.encode import plain_ids
from repro_rl.policy.qwen_shapes import SHAPES, Shape, find_shape, model_config
from repro_rl.policy.qwen_tokenizer import (
    CONTROL,
    build_tokenizer,
    byte_letters,
    merges_of,
    read_ranks,
    write_tokenizer,
)
from repro_rl.text import TextFormat
from repro_rl.text.parse import parse_forward, parse_reflection
from repro_rl.train.preflight import check_thinking

# "abc" is made of "ab" and "c"; "the" of "th" and "e"; ranks of the merges follow the 256 bytes.
LONGER = (b"ab", b"abc", b"th", b"the", b" the")


def small_ranks() -> dict[bytes, int]:
    tokens = [*(bytes([b]) for b in range(256)), *LONGER]
    return {token: rank for rank, token in enumerate(tokens)}


def write_ranks(path: Path, ranks: dict[bytes, int]) -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    return {family: build_tokenizer(small_ranks(), family) for family in ("qwen2.5", "qwen3")}


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


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


def test_a_small_vocabulary_by_hand(small):
    tokenizer = small["qwen2.5"]
    assert ids(tokenizer, "abc the") == [257, 260]
    assert ids(tokenizer, "the") == [259]  # no space before: another token
    assert ids(tokenizer, "12") == [ord("1"), ord("2")]  # digits are never joined
    assert ids(tokenizer, "a\u0308b") == [0xC3, 0xA4, ord("b")]  # NFC: one letter of two bytes
    assert tokenizer.decode([0xC3, 0xA4]) == "ä"
    assert len(byte_letters()) == len(set(byte_letters().values())) == 256


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_decoding_gives_the_text_back(text):
    tokenizer = _tokenizer()
    normal = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert tokenizer.decode(ids(tokenizer, text)) == normal
    if text.isascii():
        assert normal == unicodedata.normalize("NFC", text) == text


@given(st.text(max_size=60) | st.sampled_from(["<|im_start|>user\nab<|im_end|>", "<think>\n\n</think> the"]))
@settings(max_examples=150, deadline=None)
def test_the_short_way_to_ids_gives_the_tokenizers_own(text):
    tokenizer = _tokenizer()
    assert list(plain_ids(tokenizer, text)) == ids(tokenizer, text)


def test_a_tokenizer_that_cuts_or_pads_is_asked_itself(small):
    tokenizer = build_tokenizer(small_ranks(), "qwen3")
    tokenizer.backend_tokenizer.enable_truncation(2)
    assert list(plain_ids(tokenizer, "abc the abc")) == ids(small["qwen3"], "abc the abc")
    assert len(plain_ids(tokenizer, "abc the abc")) > 2


_BUILT: list[Any] = []


def _tokenizer() -> Any:
    if not _BUILT:
        _BUILT.append(build_tokenizer(small_ranks(), "qwen3"))
    return _BUILT[0]


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


def test_control_tokens_are_the_familys(small):
    assert len(CONTROL) == 26
    for family, count in (("qwen2.5", 22), ("qwen3", 26)):
        tokenizer = small[family]
        assert tokenizer.convert_tokens_to_ids(list(CONTROL[:count])) == list(range(261, 261 + count))
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert ids(small["qwen3"], "<think>the") == [261 + 24, 259]
    assert len(ids(small["qwen2.5"], "<think>")) > 1  # plain text for Qwen2.5


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi\nthere"}
YO = {"role": "assistant", "content": "Yo"}
MUSED = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nok"}
DEFAULT = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
)
ASKED = "<|im_start|>user\nHi\nthere<|im_end|>\n"
OPEN = "<|im_start|>assistant\n"
SHUT = "<think>\n\n</think>\n\n"


def chat(tokenizer: Any, *turns: dict[str, str], generate: bool = True, **more: Any) -> str:
    return str(
        tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=generate, **more)
    )


def test_qwen25_turns(small):
    tokenizer = small["qwen2.5"]
    assert chat(tokenizer, USER) == DEFAULT + ASKED + OPEN
    assert chat(tokenizer, SYSTEM, USER, YO, generate=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n" + ASKED + OPEN + "Yo<|im_end|>\n"
    )
    assert chat(tokenizer, USER, enable_thinking=False) == chat(tokenizer, USER, enable_thinking=True)


def test_qwen3_turns(small):
    """No system turn of its own; thinking off closes the thought in the generation prompt."""
    tokenizer = small["qwen3"]
    assert chat(tokenizer, USER) == chat(tokenizer, USER, enable_thinking=True) == ASKED + OPEN
    assert chat(tokenizer, USER, enable_thinking=False) == ASKED + OPEN + SHUT
    # Its own rule: turns before the last question lose their thoughts, the last answer always shows one.
    assert chat(tokenizer, USER, MUSED, USER) == ASKED + OPEN + "ok<|im_end|>\n" + ASKED + OPEN
    last = chat(tokenizer, USER, MUSED, generate=False)
    assert last == ASKED + OPEN + "<think>\nhm\n</think>\n\nok<|im_end|>\n"
    assert chat(tokenizer, USER, YO, generate=False) == ASKED + OPEN + SHUT + "Yo<|im_end|>\n"


@pytest.mark.parametrize("thinking", [True, False])
def test_qwen3_conversations_can_be_kept_append_only(small, thinking):
    """``keep_thoughts`` is ours: what was asked and sampled stays a prefix of what is asked next."""
    tokenizer = small["qwen3"]
    more = {"enable_thinking": thinking, "keep_thoughts": True}
    answer = MUSED if thinking else YO
    first = chat(tokenizer, USER, **more)
    second = chat(tokenizer, USER, answer, USER, **more)
    assert second.startswith(first + answer["content"] + "<|im_end|>\n")
    assert chat(tokenizer, USER, answer, USER, answer, USER, **more).startswith(
        second + answer["content"] + "<|im_end|>\n"
    )


# A policy with the family's tokenizer --------------------------------------------------------------


@pytest.fixture(scope="module")
def models(small, tmp_path_factory) -> dict[str, Path]:
    """Untrained one-layer models of both families over the small vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM

    folders = {}
    for family in ("qwen2.5", "qwen3"):
        shape = Shape(family, 32, 1, 2, 1, 64, vocab=320, positions=4096)
        config = model_config(shape)
        config.bos_token_id = config.pad_token_id = None
        config.eos_token_id = 261  # as a base checkpoint has it: <|endoftext|> alone
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        folders[family] = tmp_path_factory.mktemp("models") / family
        model.save_pretrained(folders[family])
        small[family].save_pretrained(folders[family])
    return folders


def test_turns_end_where_either_control_token_comes(models):
    for folder in models.values():
        policy = TransformersPolicy.load(folder, device="cpu")
        assert policy.eos_ids == {261, 263}  # <|endoftext|>, <|im_end|>
        assert policy.pad_id == 261
        assert policy.encode_target("the")[-2:] == (259, 263)
        assert policy.decode((259, 263)) == policy.decode((259, 261)) == "the"


def test_thinking_is_a_matter_of_the_prompt(models):
    """Off: the prompt has closed the thought already. On: the model opens it."""
    off = TransformersPolicy.load(models["qwen3"], device="cpu", thinking=False)
    on = TransformersPolicy.load(models["qwen3"], device="cpu", thinking=True)
    think, shut, newline = 285, 286, ord("\n")
    assert off.encode("the")[-6:] == (think, newline, newline, shut, newline, newline)
    assert off.encode("the")[:-6] == on.encode("the")
    assert think not in on.encode("the")


@pytest.mark.parametrize(
    ("thinking", "answer", "think", "defects"),
    [
        (True, "<think>\nhm\n</think>\n\n{}", "optional", ()),
        (True, "<think>\nhm\n</think>\n\n{}", "required", ()),
        (True, "<think>\nhm\n</think>\n\n{}", "off", ("unexpected_think",)),
        (False, "{}", "optional", ()),
        (False, "{}", "off", ()),
        (False, "<think>again</think>{}", "optional", ()),
    ],
)
def test_answers_with_and_without_thoughts_are_read(models, thinking, answer, think, defects):
    policy = TransformersPolicy.load(models["qwen3"], device="cpu", thinking=thinking)
    fmt = TextFormat("full", progress=True, think=think)
    ids_ = policy.encode_target(answer.format("<progress>40</progress><action>push up</action>"))
    parsed = parse_forward(policy.decode(ids_), fmt)
    assert (parsed.action, parsed.online, parsed.defects) == ("push up", 40, defects)
    ids_ = policy.encode_target(answer.format("<progress>\nstep 1: 20\nstep 2: 100\n</progress>"))
    reflected = parse_reflection(policy.decode(ids_), fmt, 2)
    assert reflected.values == (None if defects else (20, 100))


def test_the_switch_and_the_format_must_agree(models):
    def check(family: str, thinking: bool, think: str) -> None:
        config = load_config(None, [f"policy.thinking={thinking}", f"prompt={{style: full, think: {think}}}"])
        check_thinking(config, TransformersPolicy.load(models[family], device="cpu", thinking=thinking))

    for think in ("off", "optional"):
        check("qwen3", False, think)
    for think in ("required", "optional"):
        check("qwen3", True, think)
        check("qwen2.5", False, think)  # has no switch
    with pytest.raises(PreflightError, match=r"'required', but with policy.thinking=false"):
        check("qwen3", False, "required")
    with pytest.raises(PreflightError, match=r"'off', but with policy.thinking=true"):
        check("qwen3", True, "off")


# The real ranks ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def qwen_ranks() -> Path:
    beside = Path(__file__).parents[1].parent / "shared" / "data"
    path = Path(os.environ.get("REPRO_RL_SHARED_DATA", beside)) / "qwen" / "qwen.tiktoken"
    if not path.is_file():
        pytest.skip("Qwen's BPE ranks are not here; set REPRO_RL_SHARED_DATA to the folder that has them")
    return path


@pytest.fixture(scope="session")
def qwen3(qwen_ranks: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = write_tokenizer(qwen_ranks, tmp_path_factory.mktemp("qwen") / "tokenizer", "qwen3")
    return AutoTokenizer.from_pretrained(folder)


def test_the_real_tokenizer_has_known_ids(qwen3):
    """Ids that tiktoken gives with the same ranks and pattern (computed once, apart from this code)."""
    assert len(qwen3) == 151_669
    assert ids(qwen3, "Hello, world!") == [9707, 11, 1879, 0]
    assert ids(qwen3, "<|endoftext|><|im_start|><|im_end|><think></think>") == [
        *(151_643, 151_644, 151_645, 151_667, 151_668)
    ]
    text = "<progress>40</progress><action>search[men's size-9 shoes, $45.00]</action>"
    assert ids(qwen3, text) == [
        *(27, 14366, 29, 19, 15, 522, 14366, 1784, 1311, 29, 1836, 58, 5676, 594, 1379, 12, 24, 15294, 11),
        *(400, 19, 20, 13, 15, 15, 30961, 1311, 29),
    ]
    prompt = chat(qwen3, {"role": "user", "content": "Hi"}, enable_thinking=False)
    assert ids(qwen3, prompt) == [
        *(151_644, 872, 198, 13_048, 151_645, 198, 151_644, 77_091, 198, 151_667, 271, 151_668, 271)
    ]


def test_the_command_builds_a_folder(qwen_ranks, tmp_path, capsys, monkeypatch):
    from transformers import AutoTokenizer

    status, out = run_command(
        capsys, monkeypatch, "data", "qwen-tokenizer", str(qwen_ranks), str(tmp_path / "t")
    )
    assert status == 0
    assert "Tokenizer of qwen2.5" in out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert len(tokenizer) == 151_665
    assert chat(tokenizer, USER) == DEFAULT + ASKED + OPEN


# Shapes --------------------------------------------------------------------------------------------

PUBLISHED = {  # parameters of the published checkpoints
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(model):
    import torch
    from transformers import AutoModelForCausalLM

    shape = find_shape(model)
    assert shape is not None
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(model_config(shape))
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[model]


def test_an_unlisted_model_has_no_shape():
    assert find_shape("Qwen/Qwen1-99B") is None
    assert all(shape.heads % shape.kv_heads == 0 for shape in SHAPES.values())
