"""Preflight: Qwen3's thinking switch and the format of prompts must agree."""

from __future__ import annotations

import pytest

from repro_rl.config import load_config
from repro_rl.errors import PreflightError
from repro_rl.run.preflight import check_thinking
from support.qwen import small_codec


def test_the_switch_and_the_format_must_agree():
    def check(family: str, thinking: bool, think: str) -> None:
        config = load_config(None, [f"policy.thinking={thinking}", f"prompt={{style: full, think: {think}}}"])
        check_thinking(config.prompt, small_codec(family, thinking=thinking))

    for think in ("off", "optional"):
        check("qwen3", False, think)
    for think in ("required", "optional"):
        check("qwen3", True, think)
        check("qwen2.5", False, think)  # has no switch
    with pytest.raises(PreflightError, match=r"'required', but with policy.thinking=false"):
        check("qwen3", False, "required")
    with pytest.raises(PreflightError, match=r"'off', but with policy.thinking=true"):
        check("qwen3", True, "off")
