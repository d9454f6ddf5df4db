"""Conversations with a model behind an API."""

from __future__ import annotations

import numpy as np

from repro_rl.policy import SamplingSettings
from repro_rl.policy.http import Answer, Failure, Question
from repro_rl.policy.http.policy import MessageSession


class RecordedClient:
    """Stands for ChatClient: records the questions, and refuses those that ask for it."""

    def __init__(self) -> None:
        self.questions: list[Question] = []

    def ask(self, questions: list[Question]) -> list[Answer | Failure]:
        self.questions += questions
        return [
            Failure("too long", refused=True)
            if "refuse" in q.messages[-1][1]
            else Answer(
                "" if q.messages[-1][1].endswith("silent") else f"answer {len(q.messages)}", "stop", 10, 2
            )
            for q in questions
        ]


def test_every_turn_sends_all_messages():
    client = RecordedClient()
    session = MessageSession(client)  # type: ignore[arg-type]
    keys, how = np.array([7, 8], np.uint64), SamplingSettings(9, 0.5)
    session.answer([0, 1], ["a", "b"], keys, how)
    first, second = session.answer([1, 0], ["c", "refuse"], keys, how)
    assert (first.text, first.error, first.counted) == ("answer 3", None, (10, 2))
    assert second.error == "too long"
    assert client.questions[2].messages == (("user", "b"), ("assistant", "answer 1"), ("user", "c"))
    assert (client.questions[2].max_tokens, client.questions[2].temperature, client.questions[2].sample) == (
        9,
        0.5,
        7,
    )
    session.answer([0], ["d"], keys[:1], how)  # what got no answer is not part of the conversation
    assert client.questions[-1].messages == (("user", "a"), ("assistant", "answer 1"), ("user", "d"))
    assert (session.used(0), session.size("x")) == (0, 0)


def test_a_blank_answer_leaves_no_empty_turn():
    client = RecordedClient()
    session = MessageSession(client)  # type: ignore[arg-type]
    key, how = np.array([7], np.uint64), SamplingSettings(9, 0.5)
    for text in ("a", "silent", "also silent", "b", "c"):
        session.answer([0], [text], key, how)
    begin = (("user", "a"), ("assistant", "answer 1"))
    assert client.questions[2].messages == (*begin, ("user", "silent\n\nalso silent"))
    asked = (*begin, ("user", "silent\n\nalso silent\n\nb"))
    assert client.questions[3].messages == asked
    assert client.questions[4].messages == (*asked, ("assistant", "answer 3"), ("user", "c"))
