"""Chat templates of many families: prompts, conversations and targets are the template's, or an error."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy import TextCodec
from repro_rl.policy.tokens.chat_template import TEMPLATE_DATE, ChatTemplate, with_date
from repro_rl.policy.tokens.codec import Conversation
from repro_rl.text import TextFormat
from repro_rl.text.parse import parse_action
from support.chat_families import FAMILIES, family_tokenizer
from support.qwen import plain, small_codec, small_tokenizer

# What these write before an answer is not in their generation prompt: we add it.
COMPLETED = {
    "harmony": "<|channel|>final<|message|>",
    "chatml without a generation prompt": "<|im_start|>assistant\n",
}
SPACED = st.text(alphabet=st.sampled_from("ab 1<|>\n._"), max_size=10)


@cache
def codec(name: str, **more: Any) -> TextCodec:
    """Shared: a test that changes it builds its own."""
    return TextCodec(family_tokenizer(name), **more)


def messages(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def theirs(text: TextCodec, *texts: str) -> tuple[int, ...]:
    """Ids of the template's own text of a whole conversation, on the day that we fix."""
    template = with_date(text.tokenizer.chat_template, TEMPLATE_DATE)
    whole = text.tokenizer.apply_chat_template(
        messages(*texts),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=text.thinking,
        thinking=text.thinking,
    )
    return plain(text.tokenizer, whole)


def ours(text: TextCodec, *texts: str) -> tuple[int, ...]:
    """Ids of the conversation, its answers encoded as targets."""
    conversation = Conversation(text)
    for user, answer in zip(texts[:-1:2], texts[1::2], strict=True):
        conversation.add(conversation.turn(user), text.encode_target(answer))
    return (*conversation.ids, *conversation.turn(texts[-1]))


def tokens(text: TextCodec, ids: Any) -> list[str]:
    return list(text.tokenizer.convert_ids_to_tokens(list(ids)))


# Families -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_the_templates(name):
    text = codec(name)
    added = plain(text.tokenizer, COMPLETED.get(name, ""))
    for prompt in ("push up", " you are\n\nin a room\n"):
        assert text.encode(prompt) == (*theirs(text, prompt), *added)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_beginning_of_sequence_is_the_templates_own(name):
    """Never one more: the tokenizer writes another before every text of its own."""
    text, bos = codec(name), FAMILIES[name].bos
    if bos is None:
        assert text.tokenizer.bos_token_id is None
        return
    writes_it = "bos_token" in FAMILIES[name].template
    assert tokens(text, text.encode("push up")).count(bos) == int(writes_it)
    own = tuple(text.tokenizer("push up")["input_ids"])
    assert tokens(text, own)[0] == bos
    assert TextCodec(text.tokenizer, chat="off").encode("push up") == own


@pytest.mark.parametrize("name", FAMILIES)
def test_a_target_ends_as_the_template_ends_an_answer(name):
    text, family = codec(name), FAMILIES[name]
    target = text.encode_target("push up")
    assert tuple(tokens(text, target)[-len(family.end) :]) == family.end
    assert target[-1] == text.end_id
    assert text.end_id in text.eos_ids  # no configuration of a model has been asked
    assert text.tokenizer.convert_tokens_to_ids(family.eos) in text.eos_ids
    assert text.decode(target).strip().removeprefix("</think>") == "push up"


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.same_history])
def test_a_conversation_is_the_templates(name):
    text = codec(name)
    texts = ("push up", "left <progress>", " you are\n", "go to shelf 1", "what now?")
    added = plain(text.tokenizer, COMPLETED.get(name, ""))
    for count in (3, 5):
        assert ours(text, *texts[:count]) == (*theirs(text, *texts[:count]), *added)


@given(st.sampled_from(["gemma", "llama3", "mistral", "phi4", "command-r"]), SPACED, SPACED)
@settings(max_examples=60, deadline=None)
def test_any_text_is_written_as_the_template_writes_it(name, first, later):
    """With white space at its ends, which some templates strip."""
    text = codec(name)
    assert text.encode(first) == theirs(text, first)
    ids = ours(text, first, "up", later)
    assert ids == theirs(text, first, "up", later)


def test_an_answer_that_was_cut_off_gets_its_whole_end():
    """Llama 2 writes a space before its end token; both belong to the next turn then."""
    text = codec("llama2")
    answer = text.encode_target("push up")
    assert tokens(text, answer[-2:]) == ["▁", "</s>"]
    cut, ended = Conversation(text), Conversation(text)
    cut.add(cut.turn("a"), answer[:-2])
    ended.add(ended.turn("a"), answer)
    assert (*cut.ids, *cut.turn("b")) == (*ended.ids, *ended.turn("b"))
    assert cut.turn("b")[:2] == answer[-2:]
    sampled = Conversation(text)
    sampled.add(sampled.turn("a"), (*answer[:-2], answer[-1]))  # the model left the space out
    assert sampled.turn("b") == ended.turn("b")


def test_a_template_without_an_end_of_turn_leaves_it_to_the_end_of_text():
    tokenizer = family_tokenizer("vicuna")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ 'User' if m.role == 'user' else 'Assistant' }}: {{ m.content }}\n\n"
        "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    text = TextCodec(tokenizer)
    eos = tokenizer.eos_token_id
    assert text.encode_target("go")[-1] == text.end_id == eos
    conversation = Conversation(text)
    conversation.add(conversation.turn("a"), text.encode_target("go"))
    ids = (*conversation.ids, *conversation.turn("b"))
    assert ids.count(eos) == 1
    # Without the end token that was sampled, it is what the template writes.
    written = tokenizer.decode([i for i in ids if i != eos])
    assert written == "User: a\n\nAssistant: go\n\nUser: b\n\nAssistant:"


def test_the_header_that_a_generation_prompt_leaves_out_is_added():
    """The model should not have to write its own role or channel."""
    for name, header in COMPLETED.items():
        text = codec(name)
        assert text.template.opening.endswith(header)
        assert text.tokenizer.decode(text.encode("up")).endswith(header)


# Thoughts -----------------------------------------------------------------------------------------


def test_thoughts_of_the_template_are_seen():
    seen = {
        (name, thinking): codec(name, thinking=thinking).template.thought
        for name in ("deepseek", "deepseek-v3.1", "chatml")
        for thinking in (False, True)
    }
    assert seen == {
        ("deepseek", False): "open",
        ("deepseek", True): "open",
        ("deepseek-v3.1", False): "closed",
        ("deepseek-v3.1", True): "open",
        ("chatml", False): "free",
        ("chatml", True): "free",
    }
    assert [small_codec("qwen3", thinking=t).template.thought for t in (False, True)] == ["closed", "free"]
    switches = {name: codec(name).template.has_switch for name in ("deepseek", "deepseek-v3.1", "chatml")}
    assert switches == {"deepseek": False, "deepseek-v3.1": True, "chatml": False}
    assert small_codec("qwen3").template.has_switch


OPENED = [  # what ends a prompt, the tag
    ("<thought>\n", "<thought>"),  # EXAONE Deep
    ("[THINK]", "[THINK]"),  # Magistral
    ("◁think▷", "◁think▷"),
    ("<|thinking|>\n", "<|thinking|>"),
    ("<scratchpad>", "<scratchpad>"),  # earlier answers lack it
]


@pytest.mark.parametrize(("end", "tag"), OPENED)
def test_thoughts_in_other_tags_are_seen(end, tag):
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template += "{% if add_generation_prompt %}" + end + "{% endif %}"
    template = TextCodec(tokenizer).template
    assert (template.thought, template.other_thought) == ("open", tag)


def test_a_thought_is_known_by_its_name_where_no_earlier_answer_is_shown():
    tokenizer = family_tokenizer("chatml")
    for tag, thought in (("<thought>", "open"), ("<bot>", "free")):
        tokenizer.chat_template = "ask: {{ messages[-1].content }} " + tag
        assert TextCodec(tokenizer).template.thought == thought


@pytest.mark.parametrize("name", FAMILIES)
def test_no_role_is_taken_for_a_thought(name):
    assert codec(name).template.other_thought == ""


def test_a_tag_that_earlier_answers_have_too_is_a_role():
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<user>' if m.role == 'user' else '<bot>' }}{{ m.content }}<|im_end|>"
        "{% endfor %}"
        "{% if add_generation_prompt %}<bot>{% endif %}"
    )
    template = TextCodec(tokenizer).template
    assert (template.thought, template.conversation_problem) == ("free", None)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("<progress>40</progress><action>up</action>", "</think><progress>40</progress><action>up</action>"),
        (
            "<think>hm</think><progress>40</progress><action>up</action>",
            "hm</think><progress>40</progress><action>up</action>",
        ),
    ],
)
def test_a_target_goes_on_in_the_thought_that_the_template_has_opened(answer, shown):
    text = codec("deepseek")
    target = text.encode_target(answer)
    assert text.decode(target) == shown
    assert tokens(text, target).count("</think>") == 1
    assert "<think>" not in tokens(text, target)
    parsed = parse_action(text.decode(target), TextFormat("full", progress=True, think="optional"))
    assert (parsed.action, parsed.online, parsed.defects) == ("up", 40, ())


def test_thoughts_of_earlier_turns_are_kept():
    """The one difference to the template, which takes them out of the history (decision D36)."""
    text = codec("deepseek")
    written = text.tokenizer.decode(ours(text, "a", "<think>hm</think>up", "b"))
    assert written.count("<think>") == 2  # the second one opens the new answer
    history = text.tokenizer.decode(theirs(text, "a", "<think>hm</think>up", "b"))
    assert written == history.replace("<|Assistant|>up", "<|Assistant|><think>\nhm</think>up")


# The date -----------------------------------------------------------------------------------------


def test_the_date_is_the_same_every_day(monkeypatch):
    text = codec("llama3")
    assert "Today Date: 26 Jul 2024" in text.tokenizer.decode(text.encode("a"))
    assert text.template.dated
    assert text.describe()["date"] == "2024-07-26"
    assert not codec("gemma").template.dated
    assert codec("gemma").describe()["date"] is None


def test_a_fallback_date_is_not_taken_for_todays():
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% set day = strftime_now('%d %b %Y') if strftime_now is defined else '1 Jan 2000' %}"
        "{% macro head() %}<|im_start|>system\n{{ day }} {{ strftime_now('%B') }}<|im_end|>\n{% endmacro %}"
        "{{ head() }}" + tokenizer.chat_template
    )
    assert "26 Jul 2024 July" in tokenizer.decode(TextCodec(tokenizer).encode("a"))


def test_every_directive_of_a_date():
    tokenizer, moment = family_tokenizer("chatml"), datetime(2031, 2, 3, 16, 5, 9)
    forms = ["%-d", "%-m", "%-H", "%-I", "%e", *(f"%{c}" for c in "aAbBcdHIjmMpSUwWxXyYDFT")]
    for form in (*forms, "on %A, %d.%m.%y at %H:%M"):
        source = with_date("\n{{ strftime_now('" + form + "') }}", moment)
        written = tokenizer.apply_chat_template(messages("x"), chat_template=source, tokenize=False)
        assert written == "\n" + moment.strftime(form)


# Templates that cannot be used --------------------------------------------------------------------

FAILING = [
    ("{{ nothing.at.all }}", "UndefinedError", "'nothing' is undefined"),
    ("{% if %}", "TemplateSyntaxError", "Expected an expression"),
    ("{{ raise_exception('not today,\nnor tomorrow') }}", "TemplateError", "not today,\nnor tomorrow"),
    ("{{ messages.__class__.__mro__ }}", "SecurityError", "access to attribute '__class__'"),
    ("{{ messages[0].content + 1 }}", "TypeError", "can only concatenate str"),
]


@pytest.mark.parametrize(("template", "kind", "reason"), FAILING)
def test_a_template_that_fails_is_named_with_its_reason(template, kind, reason, tmp_path):
    from transformers import AutoTokenizer

    small_tokenizer("qwen3").save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError) as caught:
        TextCodec(tokenizer)
    message = str(caught.value)
    assert f"The chat template of {tmp_path / 'model'} fails with {kind}: " in message
    assert reason in message
    assert "policy.chat=off" in message
    assert TextCodec(tokenizer, chat="off").encode("the")


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content | upper }}",
        "{{ messages[0].content }} {{ messages[0].content }}",
        "{{ messages[0].content | replace('\n', ' ') }}",
        "{{ messages[0].content | e }}",
        "{{ messages[0] | tojson }}",
        "hello",
    ],
)
def test_a_template_that_changes_the_text_is_refused(template):
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = template
    with pytest.raises(CheckpointError, match=r"the user's text"):
        TextCodec(tokenizer)


def test_contents_as_lists_of_parts():
    """As templates of models of more than text want them; the tokens are those of plain contents."""
    plain_text, tokenizer = codec("chatml"), family_tokenizer("chatml")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ m.content }}", "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}"
    )
    text = TextCodec(tokenizer)
    for prompt in ("push up", " you are\n\nin a room\n"):
        assert text.encode(prompt) == plain_text.encode(prompt)
        assert text.next_turn(prompt) == plain_text.next_turn(prompt)
    assert text.encode_target("go") == plain_text.encode_target("go")
    assert text.template.form.system is None
    told = text.describe()
    assert (told["contents"], told["system_message"]) == ("parts", None)
    assert told["chat_template_digest"] == sha256(tokenizer.chat_template.encode()).hexdigest()
    assert plain_text.describe()["contents"] == "text"
    plain = TextCodec(tokenizer, chat="off").describe()
    assert plain["chat_template_digest"] is plain["contents"] is plain["system_message"] is None


@pytest.mark.parametrize(
    ("condition", "system"),
    [
        ("messages[0].role != 'system'", ""),
        ("messages[0].role != 'system' or not messages[0].content", "You are a helpful assistant."),
    ],
)
def test_a_system_message_that_is_demanded(condition, system):
    tokenizer = family_tokenizer("chatml")
    plain_text = tokenizer.chat_template[tokenizer.chat_template.index("{% for m in") :]
    tokenizer.chat_template = (
        f"{{% if {condition} %}}{{{{ raise_exception('system message first') }}}}{{% endif %}}{plain_text}"
    )
    text = TextCodec(tokenizer)
    assert text.template.form.system == text.describe()["system_message"] == system
    begin = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    assert text.template.first_turn("", "").before == begin
    assert text.template.conversation_problem is None
    assert text.next_turn("go") == codec("chatml").next_turn("go")


def test_several_templates_of_which_none_is_the_default():
    tokenizer = family_tokenizer("chatml")
    source = tokenizer.chat_template
    tokenizer.chat_template = {"rag": source, "tool_use": source}
    with pytest.raises(CheckpointError, match="default"):
        TextCodec(tokenizer)
    tokenizer.chat_template = {"default": source, "rag": "{{ nothing }}"}
    assert TextCodec(tokenizer).encode("a") == codec("chatml").encode("a")


REFUSES = [
    (
        "{% for m in messages %}[Round {{ loop.index }}] {{ m.role }}: {{ m.content }}\n{% endfor %}"
        "assistant: ",
        "writes the question before an earlier answer in another way",
    ),
    (
        "{% for m in messages %}{% if m.role == 'user' %}[{{ loop.index }}] ask: {{ m.content }}\n"
        "{% else %}tell: {{ m.content }}\n{% endif %}{% endfor %}tell: ",
        "writes a turn in another way once others follow",
    ),
    (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if messages | length == 1 %}assistant: {% endif %}",
        "writes a turn in another way once others follow",
    ),
    ("ask: {{ messages[-1].content }} tell: ", "does not show earlier answers"),
    (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ ' Be brief.' if loop.last }}\n{% endfor %}"
        "assistant: ",
        "writes the question before an earlier answer in another way",
    ),
    (
        "{% if messages | length > 1 %}{{ raise_exception('one question at a time') }}{% endif %}"
        "ask: {{ messages[0].content }} tell: ",
        "refuses conversations (one question at a time)",
    ),
    (
        "{{ 'Long. ' if messages | length > 3 }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
        "{% endfor %}assistant: ",
        "writes a turn in another way once others follow",
    ),
]


@pytest.mark.parametrize(("template", "reason"), REFUSES)
def test_conversations_that_cannot_grow_are_refused_and_single_prompts_are_not(template, reason):
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = template
    text = TextCodec(tokenizer)
    assert text.encode("the") == theirs(text, "the")
    assert text.encode_target("up")[-1] == tokenizer.eos_token_id
    assert text.template.conversation_problem == reason or reason in text.template.conversation_problem
    with pytest.raises(ConfigError, match=re.escape(reason)):
        text.next_turn("x")


def test_a_template_is_asked_once_for_every_white_space(monkeypatch):
    """What is rendered are marks: prompts themselves never reach the template."""
    template = ChatTemplate(small_tokenizer("qwen2.5"))
    rendered: list[str] = []
    own = template.tokenizer.apply_chat_template
    monkeypatch.setattr(
        template.tokenizer, "apply_chat_template", lambda m, **k: (rendered.append(str(m)), own(m, **k))[1]
    )
    text = TextCodec(small_tokenizer("qwen2.5"))
    rendered.clear()
    for number in range(5):
        text.encode(f"the {number}")
        text.next_turn(f"the {number}\n")
    assert len(rendered) == 2
    assert not any("the" in message for message in rendered)


def test_a_template_that_never_ends_is_ended(monkeypatch):
    from repro_rl.policy.tokens import chat_template

    monkeypatch.setattr(chat_template, "MAX_SECONDS", 0.5)
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    with pytest.raises(CheckpointError, match=r"fails with TookTooLong: it did not end within 0\.5 seconds"):
        TextCodec(tokenizer)
