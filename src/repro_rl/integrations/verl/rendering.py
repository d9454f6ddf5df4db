"""How verl's supervised trainer renders a row, and whether our own warmup trains on the same tokens.

It renders every message of a row by itself and joins the tokens. What a chat template writes before the first
user turn, and before an answer, it measures on empty user turns. Source: ``MultiTurnSFTDataset`` and
``extract_system_prompt_and_generation`` of verl 0.9.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy import TextCodec
from repro_rl.policy.tokens.chat_template import TEMPLATE_DATE, ChatTemplate
from repro_rl.policy.tokens.message_form import PLAIN, Message, MessageForm
from repro_rl.run.preflight import check_model_text
from repro_rl.run.setup import Setup
from repro_rl.types import Ids

INSTEAD = "Use 'repro-rl warmup' in its place; 'repro-rl verl train --init' takes its model."
_ASK, _ANSWER = "Go up, then left.", "<action>up</action>"
_NOTHING: Message = {"role": "user", "content": ""}  # what verl measures on


def find_codec(setup: Setup, model: str) -> TextCodec | str:
    """The tokenizer of ``model``, or the end of a sentence that says why it cannot be read here.

    A hub name that cannot be read here may be there where verl runs, and transformers may be missing here.
    Raises what ``Setup.codec`` raises for a folder or file.
    """
    unread = f"the tokenizer of {model}, which cannot be read here"
    if find_spec("transformers") is None:
        return f"{unread}: transformers is not installed."
    try:
        return setup.codec(model)
    except CheckpointError as error:
        if Path(model).exists():
            raise
        return f"{unread}: {error}"


def row_form(setup: Setup) -> tuple[MessageForm, list[str]]:
    """The form of messages that the chat template of ``policy.model`` wants, and what is to be said of it.

    Raises ConfigError where verl's supervised trainer would render other texts than our own warmup, and what
    ``find_codec`` and ``check_model_text`` raise. The tiny model has no template yet.
    """
    model = setup.config.policy.model
    if model == "tiny":
        return PLAIN, []
    codec = find_codec(setup, model)
    if isinstance(codec, str):
        return PLAIN, [f"Rows are written as for most models. They are not checked with {codec}"]
    check_model_text(setup.config.prompt, codec)
    if codec.template is None:
        found = "policy.chat is 'off'" if codec.tokenizer.chat_template else f"{model} has no chat template"
        raise ConfigError(f"{found}, but verl's supervised trainer renders rows with one. {INSTEAD}")
    remarks = check_rendering(codec)
    if codec.template.dated:
        remarks.append(
            f"verl's supervised trainer writes the date of its day, and RL {TEMPLATE_DATE:%Y-%m-%d}: the "
            f"chat template of {model} asks for it."
        )
    return codec.template.form, remarks


def check_rendering(codec: TextCodec) -> list[str]:
    """Raises ConfigError where verl's supervised trainer has other tokens than our warmup trains on.

    It must also train on the answer alone, from its first token. Returns a sentence where verl's own check of
    a row must be switched off for that. ``codec`` has a chat template.
    """
    template = codec.template
    assert template is not None
    name = f"The chat template of {template.name}"
    if template.form.system is not None:
        raise ConfigError(
            f"{name} demands a system message, and verl's supervised trainer renders every message of a row "
            f"by itself, without one. {INSTEAD}"
        )
    try:
        question, answer, together, trained = _rendered(template)
    except Exception as error:  # a template is code, so it may raise anything
        raise ConfigError(
            f"{name} fails as verl's supervised trainer uses it, every message by itself: "
            f"{type(error).__name__}: {error}\n{INSTEAD}"
        ) from error
    prompt, target = codec.encode(_ASK), codec.encode_target(_ANSWER)
    row, ours = (*question, *answer), (*prompt, *target)
    if row[: len(ours)] != ours or len(question) + trained != len(prompt):
        raise ConfigError(
            f"{name} gives other tokens for messages by themselves than for a prompt with its answer. (That "
            "of Qwen3 without thinking, for one, leaves out the closed thought.) verl's supervised trainer "
            f"renders every message of a row by itself. {INSTEAD}"
        )
    if row == together:
        return []
    return [
        f"{name} writes an answer behind its question in another way than for a prompt. verl stops at that; "
        "give its supervised trainer data.ignore_input_ids_mismatch=true. It then trains on our texts."
    ]


def _rendered(template: ChatTemplate) -> tuple[Ids, Ids, Ids, int]:
    """Question and answer of a row as verl renders them, both together, and where in the answer it trains."""

    def render(*messages: Message, generate: bool = False, **more: bool) -> Ids:
        ids: Iterable[int] = template.tokenizer.apply_chat_template(
            list(messages),
            chat_template=template.source,
            add_generation_prompt=generate,
            tokenize=True,
            return_dict=False,
            **more,
        )
        return tuple(ids)

    def turns(*messages: Message) -> Ids:
        return render(*messages, enable_thinking=template.thinking)

    def alone(message: Message) -> Ids:
        try:
            return turns(message)
        except Exception:  # verl renders it behind an empty question then
            empty: Message = {"role": "user", "content": [{"type": "text", "text": ""}]}
            return turns(empty, message)[len(turns(empty)) :]

    one, two = render(_NOTHING), render(_NOTHING, _NOTHING)
    system = one[: -(len(two) - len(one))]
    generation = render(_NOTHING, generate=True)[len(one) :]
    question, answer = template.form.messages(
        [{"role": "user", "content": _ASK}, {"role": "assistant", "content": _ANSWER}]
    )
    return alone(question), alone(answer)[len(system) :], turns(question, answer), len(generation)
