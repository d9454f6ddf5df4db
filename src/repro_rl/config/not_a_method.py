"""What a message says of a name that is no method or no credit rule: it may be another part of that name."""

from __future__ import annotations

from collections.abc import Iterable

from repro_rl.config.methods import METHODS
from repro_rl.credit import CREDIT, SOURCES
from repro_rl.errors import OWN_NAME, did_you_mean
from repro_rl.losses.named import LOSS_NAMES


def unknown_rule(name: str) -> str:
    """The message for a ``name`` that no credit rule has: which part it is and how to use it."""
    rules = CREDIT.names()
    if name in METHODS.names():
        rule = METHODS.get(name).get("credit")
        has = "" if rule is None else f", with its credit rule {rule!r}"
        return f"{name!r} is a method, not a credit rule: give method={name}{has}. Rules: {', '.join(rules)}"
    for part, registry, setting in (
        ("policy loss", LOSS_NAMES, "train.loss.name"),
        ("source of progress", SOURCES, "method.shaping"),
    ):
        if name in registry.names():
            return (
                f"{name!r} is a {part}, not a credit rule: give {setting}={name}. Rules: {', '.join(rules)}"
            )
    return f"Unknown credit rule {name!r}{did_you_mean(name, rules)}. {OWN_NAME}"


def unknown_method(name: str, others: Iterable[str] = ()) -> str:
    """The message for a ``name`` that no method has: which part it is and how to use it, or the nearest name.

    ``others``: names that would do as well.
    """
    gigpo = '{**METHODS.get("gigpo"), '
    for part, registry, setting, third in (
        ("credit rule", CREDIT, "method.credit", f'{gigpo}"credit": "{name}"}}'),
        ("policy loss", LOSS_NAMES, "train.loss.name", f'METHODS.get("gigpo"), {{"name": "{name}"}}'),
        ("source of progress", SOURCES, "method.shaping", f'{gigpo}"shaping": "{name}"}}'),
    ):
        if name in registry.names():
            return (
                f"{name!r} is a {part}, not a method. For one run give {setting}={name} beside another "
                f"method, such as gigpo. As an arm of a study file: {{name: {name}, method: gigpo, set: "
                f'[{setting}={name}]}}. For -m {name}, register it in its module: register_method("{name}", '
                f"{third}), of repro_rl.config."
            )
    return f"Unknown method {name!r}{did_you_mean(name, [*METHODS.names(), *others])}. {OWN_NAME}"
