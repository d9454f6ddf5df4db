"""Settings of a small evaluation of an API model."""

from __future__ import annotations

from pathlib import Path


def evaluation_settings(url: str, cache: Path) -> list[str]:
    """Overrides for a recipe in full style; the key is in TEST_API_KEY."""
    return [
        "env.settings={style: grid, train_rooms: 6, validation_rooms: 2, test_rooms: 4, solution: [2, 5], "
        "max_steps: 6}",
        "eval={tasks: 4, validation_tasks: 2}",
        f"api={{base_url: '{url}', model: m, key_env: TEST_API_KEY, backoff: 0, retries: 2, "
        f"cache: '{cache}'}}",
    ]
