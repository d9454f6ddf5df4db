"""The matrix of engines and features is the one that the checks of the code give."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl.integrations.adapters import ADAPTERS, FEATURES as ADAPTER_FEATURES
from repro_rl.integrations.capabilities import ENGINES, FEATURES, as_markdown, refusal

PAGE = Path(__file__).parents[2] / "docs" / "capabilities.md"


def cell(engine: str, feature: str) -> str | None:
    column = next(item for item in ENGINES if item.name == engine)
    row = next(item for item in FEATURES if item.name.startswith(feature))
    return refusal(column, row)


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown(), (
        "run: python -m repro_rl.integrations.capabilities > docs/capabilities.md"
    )


def test_the_own_trainer_has_every_feature() -> None:
    assert {item.name: refusal(ENGINES[0], item) for item in FEATURES} == dict.fromkeys(
        (item.name for item in FEATURES), None
    )


@pytest.mark.parametrize(
    ("engine", "feature", "reason"),
    [
        ("vLLM sampler", "several processes", "one training process"),
        ("API model", "training: RePro-PO", "no weights here"),
        ("verl", "KL to the reference, exact", "verl cannot compute"),
        ("verl", "multi-turn chat", "needs prompt.context=window"),
        ("verl", "trackers", "trainer.logger"),
        ("verl", "low-rank adapters", "actor_rollout_ref.model.lora_rank"),
        ("verl", "hindsight log-probs", "scores no answer a second time"),
    ],
)
def test_what_is_refused_is_refused_in_the_engines_own_words(engine: str, feature: str, reason: str) -> None:
    assert reason in (cell(engine, feature) or "")


@pytest.mark.parametrize(
    ("engine", "feature"),
    [("API model", "multi-turn chat"), ("API model", "reflections, guided"), ("verl", "training: RePro-PO")],
)
def test_what_is_accepted(engine: str, feature: str) -> None:
    assert cell(engine, feature) is None


def test_refusals_of_the_adapters_are_of_features_that_there_are() -> None:
    for adapter in ADAPTERS:
        assert set(adapter.cannot) <= set(ADAPTER_FEATURES)
        for feature in ADAPTER_FEATURES:
            assert adapter.refusal(feature) != ""  # a reason, where it is refused


def test_every_adapter_has_a_column() -> None:
    names = " | ".join(adapter.name for adapter in ADAPTERS)
    assert f"| | {names} |" in as_markdown()
