"""What is looked up by name in ``repro-rl settings``: sections, settings, and parts that plug in by name.

Parts are credit rules, policy losses, sources of progress, methods and environments. Of each: what it is, and
the settings that it reads, with their defaults and when they are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from repro_rl.config.interplay import READINGS, is_read
from repro_rl.config.method import MethodSection
from repro_rl.config.methods import METHOD_LOSSES, METHODS, about_methods
from repro_rl.config.reference import (
    SectionReference,
    Setting,
    first_paragraph,
    run_settings,
    sections,
    sections_called,
    type_of_value,
    yaml_text,
)
from repro_rl.config.sections import TrainSection
from repro_rl.credit import CREDIT, SOURCES, CreditSettings
from repro_rl.credit.interplay import FEW_READ, MADE_BEFORE, READ_BY, reads_setting
from repro_rl.credit.rules import (
    INPUTS,
    OWN as RULE_SECTION,
    SHARED,
    own_settings as settings_of_rule,
    rule_owner,
)
from repro_rl.credit.settings import RewardSettings
from repro_rl.credit.sources import (
    OWN as SOURCE_SECTION,
    function_of,
    own_settings as settings_of_source,
    source_owner,
)
from repro_rl.errors import ConfigError
from repro_rl.function_settings import parameters_of
from repro_rl.losses.named import FURTHER, LOSS_NAMES, owner_of
from repro_rl.losses.settings import OWN as BOUNDS

ALWAYS = "read always"
# Fields of CreditSettings that no rule reads itself: they make its rewards, or choose it.
NOT_OF_A_RULE = {*RewardSettings.model_fields, *MADE_BEFORE, "credit_settings"} - {"hindsight"}
STATES = "method.anchor_key"  # makes the states that some rules compare
ANY_SOURCE = "linear"  # a source that reads nothing of its own


def find_settings(
    name: str, further: Mapping[str, Sequence[Callable[[], SectionReference]]] | None = None
) -> list[SectionReference]:
    """The sections, the setting, or the environment of this name, and the parts that have it.

    ``further``: what describes names of other kinds. Raises ConfigError with the most similar names.
    """
    others = further or {}
    found = [*sections_called(name), *named_parts(name), *(describe() for describe in others.get(name, ()))]
    if found:
        return found
    tops = [section.name for section in sections() if section.name]
    rows = run_settings()
    near = [row for row in rows if row.rpartition(".")[2] == name]  # train.loss.clip_high for clip_high
    near = near or difflib.get_close_matches(name, sorted({*tops, *part_names(), *rows, *others}), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
    raise ConfigError(
        "There is no section, setting, recipe, study, environment, method, credit rule, loss, source of "
        f"progress or annotator {name!r}{hint} A settings file ends in .yaml. Sections: {', '.join(tops)}. "
        "'repro-rl list KIND' shows the other names."
    )


def part_names() -> list[str]:
    """The names of all methods, credit rules, losses and sources of progress."""
    return sorted({*METHODS.names(), *CREDIT.names(), *LOSS_NAMES.names(), *SOURCES.names()})


def named_parts(name: str) -> list[SectionReference]:
    """The method, credit rule, loss and source of progress called ``name``, those that exist.

    A setting stands in one of them: what a method sets, and the rule of its name reads, in the method's.
    """
    kinds: tuple[tuple[Iterable[str], Callable[[str], SectionReference]], ...] = (
        (METHODS.names(), _method),
        (CREDIT.names(), _rule),
        (LOSS_NAMES.names(), _loss),
        (SOURCES.names(), _source),
    )
    return _each_once([describe(name) for names, describe in kinds if name in names])


def _each_once(found: list[SectionReference]) -> list[SectionReference]:
    """The sections without repeated settings. One that is kept says when it is read, and its default."""
    if len(found) < 2:
        return found
    first, *others = found
    again = {row.name: row for section in others for row in section.settings}
    rows = []
    for row in first.settings:
        if (other := again.get(row.name)) is not None:
            row = replace(row, description=f"{other.description}; {other.default} without the method")
        rows.append(row)
    shown = {row.name for row in rows}
    sections = [replace(first, settings=tuple(rows))]
    for section in others:
        left = tuple(row for row in section.settings if row.name not in shown)
        more = len(left) < len(section.settings)
        about = section.about.replace("It reads:", "It also reads:") if more else section.about
        sections.append(replace(section, about=about, settings=left))
    return sections


def _method(name: str) -> SectionReference:
    """What a method sets, its loss included."""
    preset = METHODS.get(name)
    given = dict(_flat("method", preset))
    if name in METHOD_LOSSES.names():
        given |= dict(_flat("train.loss", METHOD_LOSSES.get(name)))
    rows = run_settings()
    settings = [
        Setting(
            key,
            rows[key].type if key in rows else type_of_value(value),
            yaml_text(value),
            rows[key].description if key in rows else "",
        )
        for key, value in given.items()
    ]
    credit = preset.get("credit", MethodSection.model_fields["credit"].default)
    told = f"method. {_sentence(about_methods().get(name, ''))}Its credit rule is {credit}. What it sets:"
    return SectionReference(name, told, tuple(settings), "value")


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value and name not in ("progress_settings", "credit_settings"):
            yield from _flat(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


def _rule(name: str) -> SectionReference:
    """The settings that a credit rule reads, beside those that make its rewards."""
    rule = CREDIT.get(name)
    settings = []
    alone = MethodSection.model_construct(credit=name, shaping="none", alignment="none")
    for key, row in run_settings().items():
        if key == STATES and is_read(STATES, alone, TrainSection()):
            settings.append(_with_reading(row))
        field = key.split(".")[1] if key.startswith("method.") else ""
        if field not in CreditSettings.model_fields or field in NOT_OF_A_RULE:
            continue
        if not rule.shipped and field not in SHARED:
            continue  # it may read any; nothing says which
        few = FEW_READ.get(field, READ_BY.get(field, (name,)))
        if reads_setting(name, key.partition(".")[2]) and (name in few or not rule.shipped):
            settings.append(_with_reading(row, shared=field in SHARED))
    owner, own = rule_owner(name), settings_of_rule(name)
    settings += _own(owner, rule.function, RULE_SECTION, own, INPUTS)
    about = _about("credit rule", rule.function, settings)
    if not rule.shipped:
        about = about.replace("It reads:", "It may read any of method. Of every rule, and its own:")
    return SectionReference(name, about, tuple(settings))


def _loss(name: str) -> SectionReference:
    """The settings that a loss reads, with its source's values as defaults."""
    loss, rows = LOSS_NAMES.get(name), run_settings()
    settings = []
    for field, default in loss.settings.items():
        if field in BOUNDS:
            row = rows[f"train.loss.{field}"]
            settings.append(Setting(row.name, row.type, yaml_text(default), f"{row.description}; {ALWAYS}"))
    if loss.function is not None:
        further = {field: value for field, value in loss.settings.items() if field not in BOUNDS}
        settings += _own(owner_of(name), loss.function, FURTHER, further, BOUNDS)
    if name == "ppo_clip":
        row = rows["train.clip"]
        settings.append(Setting(row.name, row.type, row.default, row.description))
    settings += [_with_reading(rows[f"train.loss.{field}"]) for field in ("aggregation", "scale")]
    about = loss.about or ("" if loss.function is None else first_paragraph(loss.function))
    told = f"policy loss. {_sentence(about)}For train.loss.name={name}. It reads:"
    return SectionReference(name, told, tuple(settings))


def _source(name: str) -> SectionReference:
    """The settings that a source of progress reads where ``method.shaping`` names it."""
    function, rows = function_of(SOURCES.get(name)), run_settings()
    settings = [_with_reading(rows[key]) for key in sorted(_read_with(name) - _read_with(ANY_SOURCE))]
    own = settings_of_source(name)
    settings += _own(source_owner(name), function, f"{SOURCE_SECTION}.{name}", own, ())
    about = _about("source of progress", function, settings)
    if not str(getattr(function, "__module__", "")).startswith("repro_rl."):  # nothing says which of ours
        about = about.replace("It reads:", "It may read settings of ours, and reads its own:")
    return SectionReference(name, about, tuple(settings))


def _read_with(source: str) -> set[str]:
    """The settings that a run shaped by ``source`` reads."""
    method, train = MethodSection.model_construct(shaping=source, beta=1.0), TrainSection()
    rows = run_settings()
    return {key for key in READINGS if key in rows and READINGS[key] and is_read(key, method, train)}


def _own(
    owner: str,
    function: Callable[..., Any],
    section: str,
    values: Mapping[str, Any],
    inputs: Iterable[str],
) -> list[Setting]:
    """Settings of a function: its keyword-only parameters, each of which it reads itself."""
    skipped = set(inputs)
    types = {p.name: p.annotation for p in parameters_of(owner, function) if p.name not in skipped}
    return [
        Setting(f"{section}.{field}", type_of_value(value, types.get(field)), yaml_text(value), ALWAYS)
        for field, value in values.items()
    ]


def _with_reading(row: Setting, *, shared: bool = False) -> Setting:
    """``row`` with when it is read behind its description."""
    reading = READINGS.get(row.name)
    when = ALWAYS if reading is None or shared else f"read {reading.only}"
    return Setting(row.name, row.type, row.default, f"{row.description}; {when}")


def _about(kind: str, function: object, settings: list[Setting]) -> str:
    read = "It reads:" if settings else "It reads no settings of its own."
    return f"{kind}. {_sentence(first_paragraph(function))}{read}"


def _sentence(text: str) -> str:
    """``text`` with a capital at its beginning, a full stop and a blank; "" for none."""
    first = text.split(maxsplit=1)[0] if text else ""
    begin = text[:1].upper() if first.rstrip(",.").isalpha() else text[:1]  # t/T is not T/T
    return f"{begin}{text[1:].rstrip('.')}. " if text else ""
