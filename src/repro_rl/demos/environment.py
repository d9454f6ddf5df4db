"""Episodes must have been played under the environment's settings of now, before a model learns from them.

Prompts are built from the rules of this environment and the observations that the episodes recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from repro_rl.config import EnvSection
from repro_rl.config.changes import change_lines, differences, same_places
from repro_rl.config.paths import read_run_section
from repro_rl.config.values import env_free_settings, env_schema
from repro_rl.demos.store import made_with
from repro_rl.errors import ConfigError, DataError
from repro_rl.files import check_record
from repro_rl.files.names import CONFIG_FILE, DEMOS_FILE


def check_environment(folder: Path, env: EnvSection) -> None:
    """Demonstrations must be of this environment, with the same settings; its free ones may differ.

    Those that were made elsewhere say nothing of it, and are taken. Raises ConfigError naming the settings
    that differ, DataError for a broken demos.json.
    """
    settings = made_with(folder)
    if settings is None:
        return  # made elsewhere; load_demos checks the rest
    file = folder / DEMOS_FILE
    if "env" not in settings:
        raise DataError(
            "no settings of demonstrations ('env' is missing); make them again with 'repro-rl demos'.",
            file=file,
        )
    made = check_record(EnvSection, settings["env"], file=file, record="settings.env")
    advice = "Make others with 'repro-rl demos', or use the env settings that these were made with."
    _check_same(f"{folder} holds demonstrations", made, env, advice)


def check_recorded(run: Path, env: EnvSection) -> None:
    """As ``check_environment``, for the episodes that a training has recorded; without settings: nothing.

    Raises ConfigError for the settings that differ, and for settings that are broken.
    """
    if not (run / CONFIG_FILE).exists():
        return
    section = read_run_section(run, "env")
    played = check_record(EnvSection, section, file=run / CONFIG_FILE, record="env")
    advice = "Name runs on this one in demos.recorded, or use the env settings of that run."
    _check_same(f"{run} has recorded episodes", played, env, advice)


def _check_same(what: str, before: EnvSection, now: EnvSection, advice: str) -> None:
    """Raises ConfigError, which begins with ``what`` and ends with ``advice``, where the settings differ."""
    if before.name != now.name:
        changes = differences({"env.name": before.name}, {"env.name": now.name})
    else:
        free = {f"env.settings.{name}" for name in env_free_settings(now.name)}
        old, new = _flat(before), _flat(now)
        changes = [change for change in differences(same_places(old, new), new) if change[0] not in free]
    if changes:
        raise ConfigError(f"{what} of another environment:\n{change_lines(changes)}\n{advice}")


def _flat(env: EnvSection) -> dict[str, Any]:
    """The settings by dotted name, with the defaults of what is not set where these are known."""
    schema, settings = env_schema(env.name), env.settings
    if schema is not None:
        try:
            settings = schema(**env.settings).model_dump(mode="json")
        except ValidationError:  # those of an older version
            settings = schema.model_construct().model_dump(mode="json", warnings=False) | env.settings
    return {f"env.settings.{name}": value for name, value in settings.items()}
