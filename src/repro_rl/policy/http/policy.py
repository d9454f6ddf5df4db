"""A model behind an API as an agent, for single prompts and for conversations.

It satisfies ``Policy``, but has neither token ids nor log-probs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from repro_rl.policy.base import ChatSession, Keys, SamplingSettings
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.client import ChatClient, Failure, Question
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

Messages = tuple[tuple[str, str], ...]  # (role, content)


class ServerText:
    """The text side of a model behind an API: only the server knows its tokens. See PromptText."""

    positions: int | None = None

    def encode(self, prompt: str) -> Ids:
        """Always empty; the server refuses what is too long for it."""
        return ()


class HttpPolicy:
    """Acts and reflects through ``client``. Completions have neither ids nor log-probs: nothing to train on.

    A question that stays without an answer gives a completion with ``error`` set. Errors that concern every
    call are raised: ApiError, BudgetError.
    """

    def __init__(self, client: ChatClient):
        self.client, self.codec = client, ServerText()

    def generate(
        self,
        prompts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See Policy.generate. What was asked before, under the same key, comes from the store.

        Raises ConfigError for ``forms`` where ``api.guided`` names no way to ask for them.
        """
        return ask_all(self.client, [(("user", prompt),) for prompt in prompts], keys, settings, forms)

    def open_chat(self) -> ChatSession:
        """Conversations as messages."""
        return MessageSession(self.client)

    def close(self) -> None:
        """Close the client's connections and its store of answers."""
        self.client.close()


class MessageSession:
    """A ChatSession through ``client``, which gets all messages again at every turn. All sizes are 0."""

    def __init__(self, client: ChatClient):
        self.client = client
        self._messages: dict[int, Messages] = {}

    def used(self, row: int) -> int:
        return 0

    def size(self, text: str, *, first: bool = False) -> int:
        return 0

    def most_rows(self, longest: int) -> int | None:
        return None

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See ChatSession. A turn that failed is not part of its conversation.

        A blank answer is left out of the messages, because many servers refuse an empty one.
        """
        sent = [with_turn(self._messages.get(row, ()), text) for row, text in zip(rows, texts, strict=True)]
        completions = ask_all(self.client, sent, keys, settings, forms)
        for row, messages, completion in zip(rows, sent, completions, strict=True):
            if completion.error is None:
                blank = not completion.text.strip()
                self._messages[row] = messages if blank else (*messages, ("assistant", completion.text))
        return completions

    def close(self, row: int) -> None:
        self._messages.pop(row, None)


def with_turn(messages: Messages, text: str) -> Messages:
    """The conversation with one more user turn; part of the last one, where that had no answer."""
    if messages and messages[-1][0] == "user":
        return (*messages[:-1], ("user", f"{messages[-1][1]}\n\n{text}"))
    return (*messages, ("user", text))


def ask_all(
    client: ChatClient,
    messages: Sequence[Messages],
    keys: Keys,
    settings: SamplingSettings,
    forms: Sequence[GuidedText] | None = None,
) -> list[Completion]:
    """A completion for each list of messages."""
    asked: Sequence[GuidedText | None] = forms or [None] * len(keys)
    questions = [
        Question(content, settings.max_new_tokens, settings.temperature, settings.top_p, int(key), form)
        for content, key, form in zip(messages, keys.tolist(), asked, strict=True)
    ]
    answers = client.ask(questions)
    return [completion_of(answer, question.form) for answer, question in zip(answers, questions, strict=True)]


def completion_of(answer: Answer | Failure, form: GuidedText | None = None) -> Completion:
    """An answer as a completion without token ids; an object of the schema of ``form`` as its text."""
    nothing = np.zeros(0, np.float32)
    if isinstance(answer, Failure):
        return Completion((), (), nothing, "", False, error=answer.reason)
    counted = (answer.prompt_tokens, answer.completion_tokens)
    text = answer.text if form is None else _written_out(answer.text, form)
    return Completion((), (), nothing, text, answer.whole, counted=counted)


def _written_out(text: str, form: GuidedText) -> str:
    """The text of the form where ``text`` is an object of its schema; any other text as it is."""
    try:
        return form.of_object(json.loads(text))
    except (ValueError, RecursionError):
        return text
