"""Conversations with a model behind an API: the server gets all messages again at every turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.http.client import ChatClient, Question
from repro_rl.policy.http.policy import completion_of
from repro_rl.types import Completion


class MessageChat:
    """A ChatSession through ``client``. Sizes are the server's business: 0 here."""

    def __init__(self, client: ChatClient):
        self.client = client
        self._messages: dict[int, tuple[tuple[str, str], ...]] = {}

    def used(self, row: int) -> int:
        return 0

    def size(self, text: str, *, first: bool = False) -> int:
        return 0

    def answer(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        keys: NDArray[np.uint64],
        settings: SamplingSettings,
    ) -> list[Completion]:
        asked = [
            (*self._messages.get(row, ()), ("user", text)) for row, text in zip(rows, texts, strict=True)
        ]
        completions = [
            completion_of(answer)
            for answer in self.client.ask(
                [
                    Question(turns, settings.max_new_tokens, settings.temperature, settings.top_p, int(key))
                    for turns, key in zip(asked, keys.tolist(), strict=True)
                ]
            )
        ]
        for row, turns, completion in zip(rows, asked, completions, strict=True):
            if completion.error is None:
                self._messages[row] = (*turns, ("assistant", completion.text))
        return completions

    def close(self, row: int) -> None:
        self._messages.pop(row, None)
