"""TextCodec: prompts, turns of conversations, targets and stop tokens."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy import TextCodec, load_codec
from repro_rl.policy.tokens.codec import Conversation, answer_tokens
from repro_rl.policy.tokens.control_tokens import plain_ids
from repro_rl.policy.tokens.qwen_tokenizer import build_tokenizer
from support.chat_families import tokenizer_of
from support.models import load_cpu
from support.qwen import TURN_END, chat_text, plain, small_codec, small_ranks, small_tokenizer

CODECS = {
    "qwen2.5": small_codec("qwen2.5"),
    "qwen3": small_codec("qwen3"),
    "qwen3 thinking": small_codec("qwen3", thinking=True),
    "no template": small_codec("qwen3", chat="off"),
}
TEXTS = st.text(alphabet=st.sampled_from("ab the\n<|_>é1."), max_size=12)


# Prompts and answers ------------------------------------------------------------------------------


def test_encode_decode_and_targets(tiny_folder):
    text = load_codec(tiny_folder)
    ids = text.encode("left a b")
    assert text.decode(ids) == "left a b"
    assert text.encode("left a b") is ids  # cached
    target = text.encode_target("up")
    assert target[-1] == 1
    assert text.decode(target) == "up"  # the end-of-text token is not part of the text
    with pytest.raises(ConfigError, match="no tokens"):
        text.encode("")


def test_special_tokens_that_were_sampled_show(tiny_folder):
    text = load_codec(tiny_folder)
    up = text.encode("up")[0]
    assert text.decode((0, up, 2)) == "<pad> up <unk>"
    assert text.decode((1, up, 1)) == "<eos> up"
    assert text.decode(()) == ""


def test_unknown_words_are_named(tiny_folder):
    text = load_codec(tiny_folder)
    assert text.unknown_words("left push up wall") == ["push", "wall"]
    assert text.unknown_words("left up") == []
    assert CODECS["qwen3"].unknown_words("anything ☃") == []  # has no unknown token


def test_caches_are_emptied_when_they_are_full(tiny_folder, monkeypatch):
    from repro_rl.policy.tokens import codec as module

    monkeypatch.setattr(module, "MAX_PROMPT_TOKENS", 3)
    monkeypatch.setattr(module, "MAX_TURN_TOKENS", 3)
    monkeypatch.setattr(module, "MAX_DECODED", 1)
    text = load_codec(tiny_folder)
    first = text.encode("a b c d")
    assert text.encode("a b c d") is first
    text.encode("a")
    assert text.encode("a b c d") is not first
    assert text.encode("a b c d") == first
    turn = text.next_turn("a b c d")
    text.next_turn("b")
    assert text.next_turn("a b c d") is not turn
    assert text.next_turn("a b c d") == turn
    assert [text.decode((i,)) for i in (5, 6, 7, 5)] == [text.tokenizer.decode([i]) for i in (5, 6, 7, 5)]


# Tokenizers ---------------------------------------------------------------------------------------


@given(st.text(max_size=60) | st.sampled_from(["<|im_start|>user\nab<|im_end|>", "<think>\n\n</think> the"]))
@settings(max_examples=150, deadline=None)
def test_the_short_way_to_ids_gives_the_tokenizers_own(text):
    tokenizer = small_tokenizer("qwen3")
    assert plain_ids(tokenizer, text) == plain(tokenizer, text)


def test_a_tokenizer_that_cuts_or_pads_is_asked_itself():
    tokenizer = build_tokenizer(small_ranks(), "qwen3")
    tokenizer.backend_tokenizer.enable_truncation(2)
    assert plain_ids(tokenizer, "abc the abc") == plain(small_tokenizer("qwen3"), "abc the abc")
    assert len(plain_ids(tokenizer, "abc the abc")) > 2


def test_stop_tokens_are_the_models_and_the_tokenizers():
    tokenizer = small_tokenizer("qwen3")
    assert TextCodec(tokenizer).eos_ids == {261, TURN_END}  # <|endoftext|>, <|im_end|>
    assert TextCodec(tokenizer, eos_ids=[7]).eos_ids == {7, 261, TURN_END}
    assert TextCodec(tokenizer).pad_id == 261


def test_a_tokenizer_without_any_stop_token_is_refused(tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="names no end-of-text token"):
        TextCodec(tokenizer)
    tokenizer.pad_token = None
    text = TextCodec(tokenizer, eos_ids=[9, 4])
    assert (text.pad_id, text.end_id, text.eos_ids) == (4, 4, {4, 9})
    assert text.vocabulary_size == len(tokenizer)


# Tokenizers and models of different size ----------------------------------------------------------


def test_a_model_may_be_wider_than_its_tokenizer():
    tokenizer = small_tokenizer("qwen3")
    size = len(tokenizer)
    assert TextCodec(tokenizer).answer_tokens.unused == ()
    text = TextCodec(tokenizer, vocabulary=size + 3)
    assert text.answer_tokens.unused == (size, size + 1, size + 2)
    assert text.describe()["ids_without_token"] == 3
    assert (text.vocabulary_size, text.answer_tokens.limit) == (size + 3, size)


def test_holes_in_a_vocabulary_are_not_sampled():
    allowed = answer_tokens(frozenset({3}), {0: "a", 1: "b", 5: "c", 9: "d"}, 8)
    assert (allowed.limit, allowed.holes, allowed.unused) == (6, (2, 4), (2, 4, 6, 7))


def test_a_tokenizer_wider_than_its_model_names_the_token_that_can_occur(tmp_path):
    """An ordinary token can occur in any text, a control token only where the template writes it."""
    from transformers import AutoTokenizer

    build_tokenizer(small_ranks(), "qwen3").save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for vocabulary, token in ((260, r"'Ġthe' \(id 260"), (263, r"'<\|im_end\|>' \(id 263")):
        with pytest.raises(CheckpointError, match=rf"{tmp_path / 'model'} has the token {token}"):
            TextCodec(tokenizer, vocabulary=vocabulary)
    with pytest.raises(CheckpointError, match=r"'<think>' \(id 285"):  # closes the thought in prompts
        TextCodec(tokenizer, vocabulary=285)
    TextCodec(tokenizer, vocabulary=285, thinking=True)
    text = TextCodec(tokenizer, vocabulary=264, thinking=True)
    assert text.eos_ids == {261, 263}
    assert max(text.encode("<think><tool_call> the")) < 264
    tokenizer.add_tokens(["toiletpaper"])
    with pytest.raises(CheckpointError, match="'toiletpaper'"):
        TextCodec(tokenizer, vocabulary=264, thinking=True)


def test_a_pad_token_that_the_model_does_not_have_is_not_used():
    tokenizer = build_tokenizer(small_ranks(), "qwen3")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    size = len(tokenizer) - 1
    text = TextCodec(tokenizer, vocabulary=size)
    assert tokenizer.pad_token_id == size
    assert text.pad_id == 261
    assert text.answer_tokens.unused == ()


def test_spaces_before_punctuation_stay():
    """A tokenizer may ask for them to be removed; then the environment would get another action."""
    tokenizer = tokenizer_of("pieces", ["<unk>", "<eos>"], eos="<eos>")
    tokenizer.clean_up_tokenization_spaces = True
    text = TextCodec(tokenizer)
    said = "click[size 7 , red] do n't ."
    assert text.decode(text.plain_ids(said)).strip() == said


# Chat templates -----------------------------------------------------------------------------------

QWEN_LIKE = (
    "{% for message in messages %}left {{ message.content }} right {% endfor %}"
    "{% if add_generation_prompt %}up"
    "{% if enable_thinking is defined and enable_thinking is false %} x1 x2{% endif %}"
    "{% endif %}"
)


@pytest.fixture
def chat_folder(tiny_folder, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "chat"
    shutil.copytree(tiny_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = QWEN_LIKE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("load", [lambda *a, **k: load_cpu(*a, **k).codec, load_codec])
def test_chat_template_and_thinking_switch(chat_folder, load):
    def rendered(**more):
        text = load(chat_folder, **more)
        return text.decode(text.encode("a b"))

    assert rendered() == "left a b right up x1 x2"
    assert rendered(chat="on", thinking=True) == "left a b right up"
    assert rendered(chat="off", thinking=True) == "a b"
    text = load(chat_folder)
    render = text.template.render
    assert (render("a", True), render("a", False)) == ("left a right up", "left a right up x1 x2")


def test_chat_on_without_a_template(tiny_folder):
    for load in (load_cpu, load_codec):
        with pytest.raises(ConfigError, match="no chat template"):
            load(tiny_folder, chat="on")
    assert load_codec(tiny_folder, chat="auto").chat is False


# Conversations ------------------------------------------------------------------------------------


def messages_of(users: list[str], answers: list[str]) -> list[dict[str, str]]:
    messages = []
    for i, user in enumerate(users):
        messages.append({"role": "user", "content": user})
        if i < len(answers):
            messages.append({"role": "assistant", "content": answers[i]})
    return messages


def template_text(text: TextCodec, users: list[str], answers: list[str], **more) -> str:
    messages = messages_of(users, answers)
    return chat_text(text.tokenizer, *messages, enable_thinking=text.thinking, **more)


@given(
    st.sampled_from(["qwen2.5", "qwen3", "qwen3 thinking"]),
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4),
    TEXTS,
)
@settings(max_examples=60, deadline=None)
def test_a_conversation_is_what_the_template_makes_of_it(name, pairs, last):
    """Turn by turn, with answers as ids, gives the ids of the template's text of all messages."""
    text = CODECS[name]
    conversation = Conversation(text)
    for user, answer in pairs:
        conversation.add(conversation.turn(user), text.encode_target(answer))
    ids = (*conversation.ids, *conversation.turn(last))
    users, answers = [*(user for user, _ in pairs), last], [answer for _, answer in pairs]
    assert ids == plain(text.tokenizer, template_text(text, users, answers, keep_thoughts=True))


def test_qwen3_keeps_the_thoughts_that_its_template_takes_out_later():
    """The one difference to the model's own rule: what was sampled, or closed by the prompt, stays."""
    text, thought = CODECS["qwen3 thinking"], "<think>\nab\n</think>\n\n"
    conversation = Conversation(text)
    for answer in ("the", "abc"):
        conversation.add(conversation.turn("ask"), text.encode_target(thought + answer))
    ours = text.tokenizer.decode([*conversation.ids, *conversation.turn("end")])
    theirs = template_text(text, ["ask", "ask", "end"], [thought + "the", thought + "abc"])
    assert ours.count(thought) == 2
    assert theirs.count(thought) == 0
    assert ours.replace(thought, "") == theirs
    text = CODECS["qwen3"]
    conversation = Conversation(text)
    conversation.add(conversation.turn("ask"), text.encode_target("the"))
    ours = text.tokenizer.decode([*conversation.ids, *conversation.turn("end")])
    closed = "<think>\n\n</think>\n\n"
    theirs = template_text(text, ["ask", "end"], ["the"])
    assert ours == theirs.replace("assistant\nthe", f"assistant\n{closed}the")


@pytest.mark.parametrize("name", CODECS)
def test_an_answer_without_its_end_gets_one_that_is_not_its_own(name):
    text = CODECS[name]
    (end,) = text.encode_target("")
    assert end == text.end_id == TURN_END
    answer = text.plain_ids("abc")
    for sampled, closed in ((answer, (*answer, end)), ((*answer, 261), (*answer, 261, end))):
        conversation = Conversation(text)
        conversation.add(conversation.turn("the"), sampled)  # 261: an end token but not a turn's
        assert conversation.turn("ab")[0] == end
        ended = Conversation(text)
        ended.add(ended.turn("the"), (*answer, end))
        assert conversation.turn("ab")[1:] == ended.turn("ab")
        start = len(text.encode("the"))
        assert tuple(conversation.ids[start:]) + conversation.turn("ab")[:1] == closed


def test_a_template_without_earlier_answers_is_refused():
    tokenizer = build_tokenizer(small_ranks(), "qwen3")
    tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(ConfigError, match="a conversation cannot grow"):
        TextCodec(tokenizer).next_turn("x")
