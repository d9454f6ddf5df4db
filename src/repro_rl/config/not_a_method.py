"""What a message says of a name that is no method or no credit rule: it may be another part of that name."""

from __future__ import annotations

from collections.abc import Iterable

from repro_rl.config.methods import METHODS
from repro_rl.credit import CREDIT, SOURCES
from repro_rl.losses.named import LOSS_NAMES


def unknown_rule(name: str) -> str:
    """The message for a ``name`` that no credit rule has: which part it is and how to use it."""
    rule = METHODS.get(name).get("credit") if name in METHODS.names() else None
    has = "" if rule is None else f" The credit rule of the method {name!r} is {rule!r}."
    CREDIT.names()  # reads those that packages announce
    return f"{CREDIT.unknown(name)}{has}"


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
    return METHODS.unknown(name, [*METHODS.names(), *others])
