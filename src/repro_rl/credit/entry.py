"""One entry to every rule: numbers in by name, all figures of the rule out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from repro_rl.credit.baseline import finite_array
from repro_rl.credit.call import call_rule
from repro_rl.credit.checks import check_keys, must_be
from repro_rl.credit.dapo import kept_groups, overlong_penalty
from repro_rl.credit.inputs import CreditInputs
from repro_rl.credit.interplay import reads_from_call
from repro_rl.credit.progress_advantage import progress_advantages
from repro_rl.credit.rules import CREDIT, INPUTS, own_settings
from repro_rl.credit.settings import CreditSettings, OverlongSettings, ProgressAdvantageSettings
from repro_rl.errors import ConfigError, UnknownNameError, did_you_mean
from repro_rl.settings import checked

ALIASES = {"bipace": "pace"}  # names in other collections -> ours
RENAMED = {"graphgpo": {"step_weight": "omega"}}  # settings that a rule's source calls otherwise


def advantages(
    rule: str, settings: Mapping[str, Any] | CreditSettings | None = None, **inputs: Any
) -> dict[str, Any]:
    """Apply a credit rule to numbers. Returns "advantages" and the rule's further figures, by name.

    ``rule``: a registered credit rule, or "progress_advantage" or "dapo_extras". ``settings``: a mapping of
    the rule's own settings (those of ``method.<rule>``, or of a registered rule its keywords) and the shared
    ones (gamma, omega, normalize, ...).
    What is missing is as in the rule's source, else our default. Or a whole ``CreditSettings``.
    ``inputs``: by the names of ``CreditInputs``; what a rule does not read may be given too.

    Advantages are N x T_n, or [N] of rules that give one a trajectory.
    Raises UnknownNameError for an unknown rule, and ConfigError for unknown or wrong settings and inputs.
    Settings in a mapping that this rule does not read raise ConfigError too, except the shared ones.
    """
    rule = ALIASES.get(rule, rule)
    if rule in FORMULAS:
        return FORMULAS[rule](dict(settings or {}), inputs)
    if rule not in CREDIT.names():
        known = [*CREDIT.names(), *FORMULAS]
        raise UnknownNameError(f"Unknown credit rule {rule!r}{did_you_mean(rule, known)}")
    for name in inputs:
        if name not in INPUTS:
            raise ConfigError(f"advantages: unknown input {name!r}{did_you_mean(name, INPUTS)}")
    if "groups" not in inputs:
        raise ConfigError("advantages needs the input 'groups': one task name a trajectory.")
    whole = settings if isinstance(settings, CreditSettings) else rule_settings(rule, settings or {})
    return call_rule(rule, CreditInputs(**inputs, rule=rule, details=True), whole)


def rule_settings(rule: str, settings: Mapping[str, Any]) -> CreditSettings:
    """``CreditSettings`` from a rule's settings without their sections. Raises ConfigError."""
    field = CreditSettings.model_fields.get(rule.removesuffix("_multi"))
    section = field.annotation if field is not None else None
    own = list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
    further = own_settings(rule)
    shared: dict[str, Any] = {"credit": rule, **CREDIT.get(rule).published}
    inside: dict[str, Any] = {}
    registered: dict[str, Any] = {}
    for name, value in settings.items():
        ours = RENAMED.get(rule, {}).get(name, name)
        if ours != name and ours in settings:
            raise ConfigError(f"{rule}: {name!r} is another name of {ours!r}; give one of them.")
        name = ours
        if name in own:
            inside[name] = value
        elif name in further:
            registered[name] = value
        elif name in CreditSettings.model_fields:
            if not reads_from_call(rule, name):
                raise ConfigError(f"{rule}: the setting {name!r} has no effect on a call's numbers.")
            shared[name] = value
        else:
            known = [*own, *further, *CreditSettings.model_fields]
            raise ConfigError(f"{rule}: unknown setting {name!r}{did_you_mean(name, known)}")
    if inside:
        shared[rule.removesuffix("_multi")] = inside
    if registered:
        shared["credit_settings"] = {**shared.get("credit_settings", {}), **registered}
    return checked(CreditSettings, rule, shared)


def _progress_advantage(settings: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    beta = settings.pop("beta", 1.0)
    how = checked(ProgressAdvantageSettings, "progress_advantage", settings)
    given = _named("progress_advantage", inputs, ("log_prob", "ref_log_prob"))
    return progress_advantages(
        given["log_prob"], given["ref_log_prob"], beta=beta, tokens=how.tokens, steps=how.steps
    )


def _dapo_extras(settings: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Any]:
    given = _named("dapo_extras", inputs, ("lengths", "groups", "episode_returns"))
    how = _named("dapo_extras", settings, ("max_length", "buffer", "factor"))
    must_be("dapo_extras", "lengths", given["lengths"])
    check_keys("dapo_extras", "groups", given["groups"])
    for name, value in how.items():
        finite_array(f"dapo_extras: {name}", [value])
    checked(OverlongSettings, "dapo_extras", how)
    return {
        "overlong_penalty": [overlong_penalty(length, **how) for length in given["lengths"]],
        "kept_groups": kept_groups(given["groups"], given["episode_returns"]),
    }


def _named(rule: str, given: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """``given``, which must have exactly these names. Raises ConfigError."""
    for name in (*(n for n in names if n not in given), *(n for n in given if n not in names)):
        raise ConfigError(f"{rule} takes {', '.join(names)}; {name!r} is missing or unknown.")
    return given


FORMULAS: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    "progress_advantage": _progress_advantage,
    "dapo_extras": _dapo_extras,
}
