"""What a study that continues may change of its memory settings, and what it notes of such a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from repro_rl.config import RunConfig
from repro_rl.config.changes import Change, differences
from repro_rl.config.memory_settings import (
    MEMORY_SETTINGS,
    has_dropout,
    is_memory_setting,
    without_memory,
)
from repro_rl.config.values import name_in, parse_text, type_of
from repro_rl.study.definition import Arm, Study, run_config

Json = dict[str, Any]


def fixed_memory(study: Study, names: Iterable[str]) -> bool:
    """Whether one of the arms ``names`` has an adapter with dropout, whose masks depend on the cut."""
    begun = set(names)
    return any(has_dropout(run_config(study, item).policy) for item in study.methods if item.name in begun)


def lasting(study: Json) -> Json:
    """The keys of a study without the memory settings that they set."""
    kept = {**study, "set": without_memory(_texts(study))}
    if isinstance(sweep := study.get("sweep"), dict):
        kept["sweep"] = {**sweep, "set": without_memory(_texts(sweep))}
    return {**kept, "methods": [_lasting_arm(arm) for arm in study.get("methods", [])]}


def _lasting_arm(arm: Json) -> Json:
    """An arm without the memory settings that it sets, but where these give it a warm start of its own.

    That warm start is another model to begin with.
    """
    texts, rest = _texts(arm), without_memory(_texts(arm))
    own, other = (Arm(name="arm", set=held).own_warm_start() for held in (texts, rest))
    because = {} if other or not own else {"warm start": f"its own, for {own}; put that into the study's set"}
    return {**arm, "set": rest, **because}


def memory_changes(then: tuple[Json, Json], now: tuple[Json, Json]) -> list[Change]:
    """Memory settings that differ; a study is its keys, and the dotted settings of its recipe.

    Those of an arm are called "ARM: SETTING", for arms that both have.
    """
    arms = [{arm["name"] for arm in study.get("methods", [])} for study, _ in (then, now)]
    return differences(*(_values(*side, arms[0] & arms[1]) for side in (then, now)))


def _values(study: Json, recipe: Mapping[str, object], arms: set[str]) -> dict[str, object]:
    """The memory settings of all runs, of the sweep's runs, and those that arms set for themselves."""
    shared = {name: recipe.get(name, _default(name)) for name in MEMORY_SETTINGS} | _set_by(_texts(study))
    sweep = _set_by(_texts(study.get("sweep") or {}))
    own = {
        f"{arm['name']}: {name}": value
        for arm in study.get("methods", [])
        if arm["name"] in arms
        for name, value in _set_by(_texts(arm)).items()
    }
    return {**shared, **{f"sweep: {name}": value for name, value in sweep.items()}, **own}


def _set_by(overrides: Iterable[str]) -> dict[str, object]:
    """The values of the memory settings among overrides; of several the last one counts."""
    found: dict[str, object] = {}
    for text in filter(is_memory_setting, overrides):
        name = name_in(text)
        found[name] = parse_text(text.partition("=")[2].strip(), type_of(RunConfig, name.split(".")))
    return found


def _default(name: str) -> object:
    return reduce(getattr, name.split("."), RunConfig())


def _texts(holder: Json) -> list[str]:
    """The overrides in the key ``set``."""
    held = holder.get("set")
    return [str(text) for text in held] if isinstance(held, list) else []
