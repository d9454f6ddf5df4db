"""A tokenizer's chat template as text: what it writes around the turns of a conversation.

Nothing is known of any family. What a template writes is found by rendering short conversations whose texts
are marks, and by cutting the result at the marks. So a prompt is the template's text around the user's text,
which the template never sees. It cannot read commands of its own from an observation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy.tokens.control_tokens import tokenizer_name
from repro_rl.policy.tokens.message_form import PLAIN, Message, MessageForm
from repro_rl.policy.tokens.time_limit import TookTooLong, time_limit

TEMPLATE_DATE = datetime(2024, 7, 26)  # "now" for every template: Llama 3.1's own, where it knows no date
Thought = Literal["open", "closed", "free"]

THINK, THINK_END = "<think>", "</think>"
THINK_TAGS = re.compile(r"(</?think>)")
# A tag that is opened at the very end of a prompt, such as <thought>, [THINK] and <|think|>.
_LAST_TAG = re.compile(r"([<\[◁]\|?[A-Za-z][\w-]*\|?[>\]▷])\s*$")
_THOUGHT = re.compile(r"think|thought|reason", re.IGNORECASE)  # in the name of such a tag
# How a template may want its messages, in the order of trial: contents as lists of parts or not, and a system
# message before them.
_SYSTEMS = (None, "", "You are a helpful assistant.")
_FORMS = tuple(MessageForm(parts, system) for system in _SYSTEMS for parts in (False, True))
_MARKS = ("ask2b6e", "answer7f3a", "next4c1d", "reply9e05", "last8a7c")  # user, assistant, user, ...
_PROBE = "Ab1 \"q\" 'p' <b>{x}</b> [y] (z) & %d \\n é_*#\n\n- at 1, 2: done."  # no template may change it
MAX_SECONDS = 20.0  # of one rendering, which takes milliseconds
MAX_TURNS = 1_000  # remembered turns, one for each white space around a text
_AROUND = "use prompt.context=window or policy.chat=off"


@dataclass(slots=True, frozen=True)
class Turn:
    """What the template writes around the text of a user turn."""

    before: str
    after: str  # up to where the answer begins


class ChatTemplate:
    """The chat template of ``tokenizer``, which must have one; ``thinking`` is its switch, where it has one.

    Raises CheckpointError when the template fails or does not show the user's text as it is.
    """

    def __init__(self, tokenizer: Any, thinking: bool = False):
        self.tokenizer, self.thinking = tokenizer, thinking
        self.name = tokenizer_name(tokenizer)
        self.source = with_date(self._own_source(), TEMPLATE_DATE)
        self._turns: dict[tuple[bool, str, str], Turn] = {}
        self._added = ""  # by us behind the generation prompt, see _read_header
        self.form = MessageForm()  # of its messages
        self.other_thought = ""  # the tag in which it opens a thought, where that is not <think>
        self.lead = ""  # white space that belongs to an answer
        self.closing = ""  # from behind an answer up to the text of the next user turn
        self.conversation_problem: str | None = None  # why it cannot be used turn by turn
        self._begin, self._prompt_end = self._find_form()
        self._read_conversation()
        self._turns.clear()

    # What it writes -------------------------------------------------------------------------------

    @property
    def sample(self) -> str:
        """Texts that the template writes."""
        return "".join((self._begin, self.opening, self.closing))

    @property
    def opening(self) -> str:
        """What follows the user's text, up to where the answer begins."""
        return self._prompt_end + self._added

    @property
    def thought(self) -> Thought:
        """Whether an answer begins inside a thought, behind one that is closed, or neither."""
        opened, closed = self.opening.rfind(THINK), self.opening.rfind(THINK_END)
        if opened > closed or self.other_thought:
            return "open"
        return "closed" if closed >= 0 else "free"

    @property
    def digest(self) -> str:
        """SHA-256 of the template's text, which tells apart models that differ in it alone."""
        return hashlib.sha256(self._own_source().encode()).hexdigest()

    @property
    def dated(self) -> bool:
        """Whether it writes the date."""
        other = with_date(self._own_source(), TEMPLATE_DATE + timedelta(days=400))
        question = [_user("x")]
        return self._render(question) != self._render(question, source=other)

    @property
    def has_switch(self) -> bool:
        """Whether thinking on and off give different prompts."""
        return self.render("x", thinking=True) != self.render("x", thinking=False)

    def first_turn(self, left: str, right: str) -> Turn:
        """Around the first user turn, whose text has the white space ``left`` and ``right`` at its ends."""
        return self._turn(False, left, right)

    def next_turn(self, left: str, right: str) -> Turn:
        """Around a later user turn; it begins behind the answer before it. Raises ConfigError."""
        if self.conversation_problem is not None:
            raise ConfigError(f"The chat template of {self.name} {self.conversation_problem}; {_AROUND}.")
        return self._turn(True, left, right)

    def answer(self, text: str) -> str:
        """``text`` as an answer to imitate: it goes on where the template's text ends.

        In a thought that the template has opened, a thought of the text is continued, and one without any
        closes it at once.
        """
        if self.thought == "open":
            text = text[len(THINK) :] if text.startswith(THINK) else THINK_END + text
        return self.lead + text

    def render(self, prompt: str, thinking: bool | None = None) -> str:
        """The text of a prompt as one user turn, as the template itself renders it."""
        return self._render([_user(prompt)], thinking=thinking) + self._added

    # How that is found ----------------------------------------------------------------------------

    def _find_form(self) -> list[str]:
        """What it writes around the first user turn, in the first form that shows a text unchanged."""
        first: CheckpointError | None = None
        for form in _FORMS:
            self.form = form
            try:
                parts = self._first_parts("", "")
                self._check_unchanged(parts)
            except CheckpointError as error:
                first = first or error
                if isinstance(error.__cause__, TookTooLong):
                    break
            else:
                return parts
        assert first is not None
        raise first

    def _own_source(self) -> str:
        try:
            return str(self.tokenizer.get_chat_template())
        except ValueError as error:  # several templates, none of them the default
            raise CheckpointError(
                f"The chat template of {self.name}: {error} Or do without it: policy.chat=off."
            ) from error

    def _render(
        self,
        messages: Sequence[Message],
        *,
        generate: bool = True,
        thinking: bool | None = None,
        source: str | None = None,
    ) -> str:
        thinks = self.thinking if thinking is None else thinking
        try:
            with time_limit(MAX_SECONDS):  # transformers renders in a sandbox, but for any length of time
                text = self.tokenizer.apply_chat_template(
                    self.form.messages(messages),
                    chat_template=source or self.source,
                    add_generation_prompt=generate,
                    tokenize=False,
                    enable_thinking=thinks,  # of Qwen3 and most others
                    thinking=thinks,  # of DeepSeek V3.1, Granite
                )
        except Exception as error:  # a template is code, so it may raise anything
            raise CheckpointError(
                f"The chat template of {self.name} fails with {type(error).__name__}: {error}\n"
                "Correct the template there (chat_template.jinja, or chat_template in "
                "tokenizer_config.json), or do without it: policy.chat=off."
            ) from error
        return str(text)

    def _turn(self, later: bool, left: str, right: str) -> Turn:
        key = (later, left, right)
        turn = self._turns.get(key)
        if turn is None:
            if len(self._turns) >= MAX_TURNS:
                self._turns.clear()
            before, after = (self._next_parts if later else self._first_parts)(left, right)
            turn = self._turns[key] = Turn(before, after + self._added)
        return turn

    def _first_parts(self, left: str, right: str) -> list[str]:
        return self._shown(_cut(self._render([_user(left + _MARKS[0] + right)]), _MARKS[:1]))

    def _next_parts(self, left: str, right: str) -> list[str]:
        question, answer, mark = _MARKS[:3]
        messages = [_user(question), _assistant(answer), _user(left + mark + right)]
        return self._shown(_cut(self._render(messages), _MARKS[:3]))[2:]

    def _check_unchanged(self, around: Sequence[str]) -> None:
        shown = self.render(_PROBE) == _PROBE.join(around)
        self._shown([] if shown else None)

    def _shown(self, parts: list[str] | None) -> list[str]:
        if parts is None:
            raise CheckpointError(
                f"The chat template of {self.name} does not show the user's text once and unchanged; correct "
                "it, or do without it: policy.chat=off."
            )
        return parts

    def _read_conversation(self) -> None:
        """How earlier answers are shown, and whether that stays so as the conversation grows."""
        marks = _MARKS[:3]
        try:
            parts = _cut(self._render(_conversation(marks)), marks)
            longer = _cut(self._render(_conversation(_MARKS)), _MARKS)
        except CheckpointError as error:
            parts = longer = None
            self.conversation_problem = f"refuses conversations ({error.__cause__})"
        if parts is None:
            self.conversation_problem = self.conversation_problem or (
                "does not show earlier answers, so a conversation cannot grow"
            )
            parts = self._single_answer()
            if parts is None:
                self.other_thought = _opened_last(self._prompt_end, None)
                return
        self.closing = parts[2]
        self._read_header(parts[1])
        if len(parts) < 4 or self.conversation_problem:
            return
        begin, header, closing, end = parts
        steady = [begin, header, closing, header, closing, end]
        if longer != steady or begin != self._begin or end != self._prompt_end:
            self.conversation_problem = (
                "writes a turn in another way once others follow, so a conversation cannot grow"
            )

    def _single_answer(self) -> list[str] | None:
        """Around one answer without anything behind it; None where the template does not show it."""
        marks = _MARKS[:2]
        try:
            return _cut(self._render(_conversation(marks), generate=False), marks)
        except CheckpointError:
            return None

    def _read_header(self, header: str) -> None:
        """What the template writes before an earlier answer, beside what it writes before a new one.

        Thoughts may differ (decision D36), and white space before the answer is the answer's. What else the
        template writes there, but not before a new answer, is added to the prompt. A model should not have to
        write its own role.
        """
        prompt = self._prompt_end
        self.other_thought = _opened_last(prompt, header)
        if self.other_thought:
            return
        if header.startswith(prompt):
            more = header[len(prompt) :]
            if not more.strip():
                self.lead = more
            elif _bare(more):
                self._added = more
            return
        if _bare(header) != _bare(prompt):
            self.conversation_problem = self.conversation_problem or (
                "writes the question before an earlier answer in another way than before a new one, so a "
                "conversation cannot grow"
            )


def form_of(tokenizer: Any) -> MessageForm:
    """The form of messages that a tokenizer's chat template wants; the plain one without a template.

    Raises what ``ChatTemplate`` raises.
    """
    return ChatTemplate(tokenizer).form if tokenizer.chat_template else PLAIN


def with_date(source: str, moment: datetime) -> str:
    """A template whose ``strftime_now`` always gives ``moment``.

    transformers passes templates no functions, so it is a macro of the template itself. It knows the
    directives that have a value of their own, which are all but those of time zones.
    """
    if "strftime_now" not in source:
        return source
    directives = [f"%-{c}" for c in "dmHIMSjy"] + [f"%{c}" for c in "aAbBcdefHIjmMpSuUwWxXyYDFT"]
    values = "".join(f"|replace('{d}', '{moment.strftime(d)}')" for d in directives)
    # The empty expression keeps the line break that may follow: one behind a block would be cut off.
    return "{%- macro strftime_now(form) -%}{{ form" + values + "}}{%- endmacro -%}{{ '' }}" + source


def _opened_last(prompt: str, header: str | None) -> str:
    """A tag beside <think> in which ``prompt`` opens a thought at its end; "" where there is none.

    ``header``: what stands before an earlier answer, where that is known. Any tag that it lacks is one.
    """
    last = _LAST_TAG.search(prompt)
    if last is None or last[1] == THINK:
        return ""
    named = bool(_THOUGHT.search(last[1]))
    lacking = header is not None and last[1] not in header and "|" not in last[1]
    return last[1] if named or lacking else ""


def _bare(text: str) -> list[str]:
    """The words of ``text`` without the marks of thoughts."""
    return THINK_TAGS.sub(" ", text).split()


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _conversation(texts: Sequence[str]) -> list[Message]:
    """Messages of user and assistant in turn."""
    return [(_user, _assistant)[i % 2](text) for i, text in enumerate(texts)]


def _cut(text: str, marks: Sequence[str]) -> list[str] | None:
    """``text`` cut at the marks; None unless each stands in it once, in this order."""
    if any(text.count(mark) != 1 for mark in marks):
        return None
    parts = []
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found:
            return None
        parts.append(part)
    return [*parts, text]
