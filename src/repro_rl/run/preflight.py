"""Checks before anything expensive starts, of what would certainly fail hours later."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from repro_rl.config import PromptSection
from repro_rl.errors import PreflightError
from repro_rl.policy.text import TextCodec
from repro_rl.rollout.context import Context
from repro_rl.text.prompts import PromptBuilder

CHECKPOINT_COPIES = 3  # trained weights and two Adam moments


def check_prompt(context: Context, prompts: PromptBuilder, text: TextCodec, task: str) -> None:
    """The first prompt of ``task`` must fit, and the tokenizer must know its words. Raises PreflightError."""
    unknown = text.unknown_words(context.first_prompt(prompts, text, task))
    if unknown:
        raise PreflightError(
            f"The tokenizer does not know {', '.join(map(repr, unknown[:5]))} in the first prompt of {task}: "
            "the model was built for other env or prompt settings. Use the settings of its warmup, or run a "
            "new warmup."
        )


def check_thinking(prompt: PromptSection, text: TextCodec) -> None:
    """Qwen3's thinking switch and the format must agree on thoughts. Raises PreflightError.

    Templates without such a switch (Qwen2.5) may go with any format.
    """
    if not text.chat or prompt.style == "compact":
        return
    if text.render("x", thinking=True) == text.render("x", thinking=False):
        return
    if prompt.think == "required" and not text.thinking:
        raise PreflightError(
            "prompt.think is 'required', but with policy.thinking=false the chat template closes the thought "
            "before the answer begins; set policy.thinking=true, or prompt.think to optional or off."
        )
    if prompt.think == "off" and text.thinking:
        raise PreflightError(
            "prompt.think is 'off', but with policy.thinking=true the model begins with a thought, which "
            "counts as a defect; set policy.thinking=false, or prompt.think to optional or required."
        )


def check_disk(out: Path, model: Any, checkpoints: int) -> None:
    """The disk needs room for ``checkpoints`` of the model and one being written. Raises PreflightError."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    needed = weights * CHECKPOINT_COPIES * (checkpoints + 1)
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise PreflightError(
            f"Checkpoints need about {needed / 1e9:.1f} GB in {out}, {free / 1e9:.1f} GB are free; "
            f"lower train.keep or use another disk."
        )
