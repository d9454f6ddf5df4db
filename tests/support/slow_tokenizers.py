"""Tokenizers of transformers that are written in Python ("slow"), as those of a model's own code are."""

from __future__ import annotations

from typing import Any


def slow_tokenizer(words: list[str] | None = None, **more: Any) -> Any:
    """Of single characters or, with ``words``, of words between spaces, where an unknown one is <unk>."""
    from transformers import PreTrainedTokenizer

    names = words if words is not None else [chr(n) for n in (10, *range(32, 127))]

    class Slow(PreTrainedTokenizer):
        def __init__(self, **kwargs: Any):
            special = [
                kwargs[key] for key in ("eos_token", "pad_token", "unk_token", "bos_token") if key in kwargs
            ]
            self.ids = {name: number for number, name in enumerate(dict.fromkeys([*special, *names]))}
            super().__init__(**kwargs)

        @property
        def vocab_size(self) -> int:
            return len(self.ids)

        def get_vocab(self) -> dict[str, int]:
            return {**self.ids, **self.added_tokens_encoder}

        def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
            return list(text) if words is None else text.split()

        def _convert_token_to_id(self, token: str) -> int:
            return self.ids.get(token, self.ids["<unk>"])

        def _convert_id_to_token(self, index: int) -> str:
            return {number: name for name, number in self.ids.items()}[index]

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            return ("" if words is None else " ").join(tokens)

        def build_inputs_with_special_tokens(
            self, ids: list[int], more: list[int] | None = None
        ) -> list[int]:
            begin = [] if self.bos_token_id is None else [self.bos_token_id]
            return begin + ids + (more or [])

    return Slow(eos_token="</s>", unk_token="<unk>", **more)
