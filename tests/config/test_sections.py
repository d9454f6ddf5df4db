"""Sections of the settings that say more than their values."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from repro_rl.config import KlSection, PromptSection, VllmServerSection
from repro_rl.config.api import ApiSection, is_api
from repro_rl.errors import ConfigError


def test_require_window() -> None:
    PromptSection(context="window").require_window("the pilot study")
    with pytest.raises(ConfigError, match=r"^the pilot study needs prompt\.context=window; it is chat\.$"):
        PromptSection(context="chat").require_window("the pilot study")


@pytest.mark.parametrize(
    ("style", "think", "thinks"),
    [
        ("full", "required", True),
        ("full", "optional", True),
        ("full", "off", False),
        ("compact", "required", False),
    ],
)
def test_whether_completions_may_hold_a_thought(style: str, think: str, thinks: bool) -> None:
    assert PromptSection(style=style, think=think).thinks is thinks  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3, 7, 40])
def test_progress_is_written_in_multiples_of_a_divisor_of_100(value: int) -> None:
    assert PromptSection(resolution=20).resolution == 20
    with pytest.raises(ValidationError, match="give a divisor of 100 up to 50"):
        PromptSection(resolution=value)


def test_whether_the_kl_term_compares_anything() -> None:
    assert KlSection().active
    assert not KlSection(form="none").active
    assert not KlSection(coef=0).active


def test_the_address_of_a_server() -> None:
    assert VllmServerSection(url="http://localhost:8000/v1/").url == "http://localhost:8000"
    for url in ("localhost:8000", "http://user:word@host", "http://host/?key=1"):
        with pytest.raises(ValidationError, match="give an address such as"):
            VllmServerSection(url=url)
    assert ApiSection(base_url="http://localhost:8000/v1/").base_url == "http://localhost:8000/v1"
    with pytest.raises(ValidationError, match="without a user, a password or a query"):
        ApiSection(base_url="http://host/v1?key=1")


def test_the_name_of_a_model_behind_an_api() -> None:
    assert is_api("api:deepseek-chat")
    assert not is_api("Qwen/Qwen3-0.6B")
    assert not is_api(None)


def test_a_changed_field_is_checked() -> None:
    prompt = PromptSection()
    with pytest.raises(ValidationError, match="history"):
        prompt.history = -1
    with pytest.raises(ValidationError):
        prompt.hystory = 1  # type: ignore[attr-defined]
