"""Settings of a file that belong to the method which it names, where another method is chosen.

What defines a method is its credit rule, and all that its preset sets. It must not pass from a file to
another method: two arms of a comparison would then be the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from repro_rl.config.method import MethodSection
from repro_rl.config.methods import METHOD_LOSSES, METHODS
from repro_rl.credit import CREDIT
from repro_rl.credit.interplay import READ_BY
from repro_rl.credit.rules import own_settings
from repro_rl.losses.settings import LossSection
from repro_rl.registry import Registry

Settings = dict[str, Any]
LOSS = "train.loss"
DEFAULT_METHOD = str(MethodSection.model_fields["name"].default)  # of a file that names none
RULE = MethodSection.model_fields["credit"].default
SOURCES_OF = ("shaping", "alignment", "value_source")


def owners(layers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The method to which each field of ``method``, and ``train.loss``, was given in files.

    ``layers``: the files' nested settings, the lowest first. A file that names no method means the one below
    it, the lowest the default.
    """
    method = DEFAULT_METHOD
    given: dict[str, str] = {}
    for layer in layers:
        section, train = layer.get("method"), layer.get("train")
        if isinstance(section, dict):
            method = str(section.get("name", method))
            given |= {name: method for name in section if name != "name"}
        if isinstance(train, dict) and "loss" in train:
            given[LOSS] = method
    return given


def without_overridden(given: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """``given`` without what overrides with these dotted ``names`` set: that is meant for any method."""
    changed = {".".join(name.split(".")[:2]) for name in names}
    if "method" in changed:  # the whole section
        return {}
    return {
        name: owner
        for name, owner in given.items()
        if not {name, f"method.{name}"} & changed and not (name == LOSS and "train" in changed)
    }


def for_chosen(data: Settings, given: Mapping[str, str]) -> Settings:
    """The nested settings ``data`` without what files gave to another method than the one that is chosen.

    ``given``: of ``owners``. Fields stay that neither method sets itself, such as ``gamma``. Settings of a
    credit rule or source go with it. A Python warning says which other fields were left out, but for values
    that one of the two methods has anyway.
    """
    section = data.get("method")
    if not isinstance(section, dict):
        return data
    chosen = str(section.get("name", DEFAULT_METHOD))
    for owner in sorted({*given.values()} - {chosen}):
        names = {name for name, of in given.items() if of == owner}
        section, dropped = _without(section, names - {LOSS}, owner, chosen)
        data = {**data, "method": section}
        if LOSS in names:
            data, more = _without_loss(data, owner, chosen)
            dropped |= more
        if dropped:
            told = ", ".join(f"{name}={value}" for name, value in sorted(dropped.items()))
            warnings.warn(
                f"The method {chosen!r} does not take {told}: the file gives it to its method {owner!r}. To "
                f"have it in {chosen!r} too, set it by an override.",
                stacklevel=4,
            )
    return data


def _without(section: Settings, names: set[str], owner: str, chosen: str) -> tuple[Settings, Settings]:
    """The section ``method`` without what of ``names`` is the ``owner``'s alone, and what to tell."""
    old, new = _preset(METHODS, owner), _preset(METHODS, chosen)
    defining = names & {"credit", *old, *new}
    kept = {name: value for name, value in section.items() if name not in defining}
    before, after = {**old, **section}, {**new, **kept}
    if "credit" not in names:
        before["credit"] = old.get("credit", RULE)
    rules = before["credit"], after.get("credit", RULE)
    for name in names & kept.keys():
        if name == "progress_settings":
            kept[name] = _of_sources(kept[name], before, after)
        elif rules[0] != rules[1] and _goes_with(name, section[name], rules):
            kept.pop(name)
    told = {
        f"method.{name}": section[name]
        for name in defining
        if not any(_same(section[name], preset.get(name), MethodSection, name) for preset in (old, new))
    }
    return kept, told


def _goes_with(name: str, value: Any, rules: tuple[str, str]) -> bool:
    """Whether a field is a setting of the file's credit rule, the first, and none of the chosen method's."""
    if name == "credit_settings":
        known = own_settings(rules[0]) if rules[0] in CREDIT.names() else value
        return isinstance(value, dict) and {*value} <= {*known}
    readers = READ_BY.get(name, rules)
    return rules[0] in readers and rules[1] not in readers


def _of_sources(value: Any, before: Settings, after: Settings) -> Any:
    """Settings of sources of progress without those that only the file's method asks for."""
    if not isinstance(value, dict):
        return value
    gone = {before.get(name) for name in SOURCES_OF} - {after.get(name) for name in SOURCES_OF}
    return {source: own for source, own in value.items() if source not in gone}


def _without_loss(data: Settings, owner: str, chosen: str) -> tuple[Settings, Settings]:
    """``data`` without what of ``train.loss`` belongs to the method ``owner``, and what is worth telling."""
    loss = data["train"]["loss"]
    old, new = _preset(METHOD_LOSSES, owner), _preset(METHOD_LOSSES, chosen)
    if not isinstance(loss, dict) or not (old or new):
        return data, {}
    defining = {*old, *new}
    if "aggregation" in defining:  # of which the scale is a setting
        defining.add("scale")
    leave = set(loss) if "name" in defining else set(loss) & defining
    kept = {name: value for name, value in loss.items() if name not in leave}
    told = {
        f"{LOSS}.{name}": loss[name]
        for name in leave - {"scale"}
        if not any(_same(loss[name], preset.get(name), LossSection, name) for preset in (old, new))
    }
    return {**data, "train": {**data["train"], "loss": kept}}, told


def _preset(registry: Registry[Settings], name: str) -> Settings:
    """What a method sets; nothing for one that is not known here."""
    return registry.get(name) if name in registry.names() else {}


def _same(value: Any, own: Any, section: type[BaseModel], name: str) -> bool:
    """Whether a file's ``value`` is what the method has: ``own`` over the field's default."""
    if name not in section.model_fields:
        return False
    default = section.model_fields[name].get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    if isinstance(value, dict) and isinstance(default, dict):
        has = {**default, **(own or {})}
        return all(has.get(key) == item for key, item in value.items())
    return bool(value == (default if own is None else own))
