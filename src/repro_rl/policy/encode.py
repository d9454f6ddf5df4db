"""Text to token ids: the one way for prompts, turns, targets and counts."""

from __future__ import annotations

from typing import Any

from repro_rl.types import Ids


def plain_ids(tokenizer: Any, text: str) -> Ids:
    """Ids of a text, nothing added.

    A fast tokenizer's core is asked directly: for a short prompt what transformers wraps around it takes
    longer. One that would cut or pad is left to transformers, which switches that off.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None or core.truncation is not None or core.padding is not None:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return tuple(core.encode_batch_fast([text], add_special_tokens=False)[0].ids)
