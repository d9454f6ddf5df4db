"""What a study compares: methods x seeds from one warm start per seed, as settings in a small YAML file.

A study becomes jobs, and a job is a list of ordinary ``repro-rl`` commands that anyone can repeat by hand.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from repro_rl.config import METHODS, RunConfig, Section, import_plugins, load_config, read_settings
from repro_rl.config.interplay import READINGS, is_read, unread
from repro_rl.config.loading import load_finished
from repro_rl.config.not_a_method import unknown_method
from repro_rl.config.problems import readable
from repro_rl.config.recipe_files import DEFAULT_RECIPE, is_yaml_file, merged, with_bases, yaml_names
from repro_rl.config.renamed import current_name
from repro_rl.config.sections import READ_BY_WARMUP
from repro_rl.config.values import name_in, parse_text
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.registry import add_kind

SHIPPED = files("repro_rl").joinpath("studies")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# Settings that begin with these do not change the warm start. An arm's own ``train.optimizer`` is that of its
# RL alone; for the study's own see STUDY_WIDE.
AFTER_WARMUP = (
    *("train.", "method.", "method=", "alarms."),
    *("eval.tasks", "eval.split", "eval.rollouts", "eval.temperature"),
)
# Settings of ``train`` that warm starts have too where the study sets them: where runs report to, and how
# much memory they take.
STUDY_WIDE = (
    *("train.trackers", "train.tracking", "train.callback"),
    *(f"train.{name}" for name in READ_BY_WARMUP),
)
SET_BY_STUDY = ("seed", "train.init", "method", "method.name")

# Settings that are no fields of their own: which of them are read depends on their names.
ONE_BY_ONE = ("method.credit_settings.", "method.progress_settings.", "train.loss.settings.", "train.clip")

# Arms that are no method of their own, by name (ablations of docs/methods.md).
SPECIAL: dict[str, dict[str, Any]] = {
    "warmup-only": {"method": "repro", "train": False},
    "warmup-only-act": {"method": "gigpo", "train": False},
    # Rehearsal would teach what the warmup teaches.
    "repro-no-warmup": {"method": "repro", "init": "untrained", "set": ["method.rehearsal=0"]},
    "repro-no-rehearsal": {"method": "repro", "set": ["method.rehearsal=0"]},
}


def _overrides(value: Any) -> Any:
    """A mapping of dotted keys is as good as a list of KEY=VALUE."""
    if isinstance(value, dict):
        return [f"{key}={_text(item)}" for key, item in value.items()]
    return value


def _text(value: Any) -> str:
    """A value as an override is written: YAML on one line, None as nothing."""
    if value is None:
        return ""
    return str(yaml.safe_dump(value, default_flow_style=True, width=10**9)).split("\n...")[0].strip()


class Arm(Section):
    """One row of the table: a method, and in what it differs from the others."""

    name: str
    method: str = ""
    set: list[str] = Field(default=[], description="SECTION.KEY=VALUE for this arm")
    init: str = Field("warm", description='"warm", "untrained", or a model folder or hub name')
    train: bool = Field(True, description="false: the model it would start from is evaluated as it is")
    tuned_as: str | None = Field(None, description="take the sweep's settings of this arm, without a sweep")

    _mapping = field_validator("set", mode="before")(_overrides)

    @model_validator(mode="after")
    def _check(self) -> Arm:
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"the name {self.name!r} must be letters, digits and . _ + - (it names a folder)"
            )
        return self

    def own_warm_start(self) -> list[str]:
        """Settings of this arm that the warm start depends on; with any, it gets one of its own."""
        return [item for item in self.set if not item.startswith(AFTER_WARMUP)]


class Evaluation(Section):
    """How the runs are evaluated; None leaves the recipe's setting."""

    checkpoints: list[str] = Field(default=["last"], min_length=1)
    split: str | None = None
    tasks: int | None = Field(None, gt=0)
    rollouts: int | None = Field(None, gt=0)
    temperatures: list[float] = Field(default=[], description="one evaluation each; empty: the recipe's one")
    judge: bool = Field(True, description="reflect on the test episodes too, to measure progress quality")


class Sweep(Section):
    """The same grid for every method, on seeds that are not among the final ones, judged on validation."""

    seeds: list[int] = Field(default=[100], min_length=1)
    knobs: dict[str, list[Any]] = Field(min_length=1)
    env_steps: int | None = Field(None, gt=0)
    set: list[str] = Field(default=[], description="SECTION.KEY=VALUE for the sweep's runs alone")
    last: int = Field(3, gt=0, description="validations at the end whose mean is the score")

    _mapping = field_validator("set", mode="before")(_overrides)


class Study(Section):
    """A comparison."""

    recipe: str = Field(DEFAULT_RECIPE, description="recipe or settings file of every run")
    methods: list[Arm] = Field(
        min_length=1, description="the arms: methods, or arms with settings of their own"
    )
    seeds: list[int] = Field(
        default=[0, 1, 2, 3, 4], min_length=1, description="of the runs; each has its own warm start"
    )
    env_steps: int | None = Field(
        None, gt=0, description="environment steps a run; the recipe's if not given"
    )
    set: list[str] = Field(default=[], description="SECTION.KEY=VALUE for every run")
    evaluation: Evaluation = Field(Evaluation(), description="how every run is evaluated")
    references: list[str] = Field(default=[], description="arms the others are subtracted from, by seed")
    sweep: Sweep | None = Field(None, description="settings that each arm chooses first, on seeds of its own")

    _mapping = field_validator("set", mode="before")(_overrides)

    @field_validator("methods", mode="before")
    @classmethod
    def _arms(cls, value: Any) -> Any:
        return [arm_fields(item) for item in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Study:
        names = [item.name for item in self.methods]
        for kind, values in (("method", names), ("seed", [str(seed) for seed in self.seeds])):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{kind} {', '.join(twice)} is there twice; give each arm its own name")
        for name in self.references:
            if name not in names:
                raise ValueError(f"references: unknown arm {name!r}{did_you_mean(name, names)}")
        for item in self.methods:
            if item.tuned_as is not None and (item.tuned_as not in names or item.tuned_as == item.name):
                hint = did_you_mean(item.tuned_as, names)
                raise ValueError(
                    f"{item.name} has the settings of the arm {item.tuned_as!r} (tuned_as), which must be "
                    f"another one of this study{hint}"
                )
        if self.sweep is not None and set(self.sweep.seeds) & set(self.seeds):
            shared = sorted(set(self.sweep.seeds) & set(self.seeds))
            raise ValueError(
                f"sweep.seeds and seeds share {shared}: settings chosen on a seed flatter its result"
            )
        return self

    def compared_with(self) -> list[str]:
        """The reference arms: as given, else "repro", else the first one that trains."""
        names = [item.name for item in self.methods]
        if self.references:
            return list(self.references)
        trained = [item.name for item in self.methods if item.train]
        return ["repro"] if "repro" in names else (trained or names)[:1]


def arm_fields(item: Any) -> Any:
    """An entry of ``methods`` as the fields of an Arm: a name alone is a method or a special arm."""
    fields = {"name": item} if isinstance(item, str) else dict(item) if isinstance(item, dict) else item
    if not isinstance(fields, dict):
        return fields
    name = str(fields.get("name") or fields.get("method") or "")
    special = SPECIAL.get(name, {}) if "method" not in fields else {}
    fields = {**special, **fields, "name": name}
    if not fields.get("method"):
        if name not in METHODS.names():
            raise ConfigError(unknown_method(name, SPECIAL))
        fields["method"] = name
    return fields


def studies() -> list[str]:
    """Names of the studies that ship with the package."""
    return yaml_names(SHIPPED)


add_kind("study", studies, "'repro-rl compare {name}'")


def _own_arms(data: dict[str, Any]) -> dict[str, Any]:
    """The entries of ``methods`` in a study's file, by their names."""
    arms = data.get("methods")
    own = {}
    for item in arms if isinstance(arms, list) else ():
        name = item.get("name") or item.get("method") if isinstance(item, dict) else item
        own[str(name)] = item
    return own


def _selected(data: dict[str, Any], chosen: Sequence[Any]) -> dict[str, Any]:
    """The keys of a study with the ``chosen`` arms alone.

    A name means the study's own arm, with its settings. Another name is a method, and a mapping an arm of its
    own. References that are not chosen are left out.
    """
    own = _own_arms(data)
    names = _own_arms({"methods": list(chosen)})
    selected = {"methods": [own.get(item, item) if isinstance(item, str) else item for item in chosen]}
    references = data.get("references")
    if isinstance(references, list):
        selected["references"] = [name for name in references if name in names]
    return selected


def load_study(source: str | Path | None, **changes: Any) -> Study:
    """Read a study file, or a shipped one by name. ``changes`` replace top-level keys; ``set`` is added to.

    Names in ``methods`` select the study's own arms, with their settings; others are methods. The same holds
    for the ``methods`` of a file with a base, and of the base's references those stay that it has.

    ``base: NAME`` in a file names the study whose keys it changes: a shipped one, or a file beside it. A
    ``source`` of None starts from the changes alone. Raises ConfigError naming the file, the key and the
    most similar valid name.
    """
    forget_settings()
    data: dict[str, Any] = {}
    name = "the study"
    if source is not None:
        name = str(source)
        for file, layer in reversed(with_bases(name, SHIPPED, studies(), "study")):
            beside = Path(file).parent / str(layer.get("recipe"))
            if is_yaml_file(str(layer.get("recipe"))) and beside.exists():
                layer["recipe"] = str(beside)
            if data and isinstance(layer.get("methods"), list):
                selected = _selected(data, layer["methods"])
                layer = {**selected, **layer, "methods": selected["methods"]}
            data = merged(data, layer)
    added = list(changes.pop("set", []))
    chosen = changes.pop("methods", None)
    own, whole = _own_arms(data), dict(data)
    if chosen is not None:
        data |= _selected(data, chosen)
    data.update({key: value for key, value in changes.items() if value is not None})
    if added:
        data["set"] = [*(_overrides(data.get("set")) or []), *added]
    try:
        study = study_of(data)
        check_set_is_read(study, whole if own else None)
        check_settings(study)
    except ValidationError as error:
        names = [item for item in chosen or () if isinstance(item, str)]
        unknown = [item for item in names if item not in own and item not in METHODS.names()]
        arms = f"\nIts arms, which -m selects: {', '.join(own)}." if own and unknown else ""
        raise ConfigError(f"{name}: {readable(error, Study)}{arms}") from error
    except ConfigError as error:
        raise error if source is None else ConfigError(f"{name}: {error}") from error
    return study


def study_of(data: dict[str, Any]) -> Study:
    """A study from its keys; plugins are imported first, since arms may name what they register.

    ``plugins`` are those of the recipe, and of ``set`` of the study and its arms. Raises ConfigError and
    pydantic's ValidationError.
    """
    if isinstance(data.get("recipe"), str):
        import_plugins(read_settings(data["recipe"]).get("plugins"))
    arms = data.get("methods")
    owners = [data, *(item for item in (arms if isinstance(arms, list) else ()) if isinstance(item, dict))]
    for setting in (text for owner in owners for text in _overrides(owner.get("set")) or []):
        key, _, value = str(setting).partition("=")
        if key.strip() == "plugins":
            import_plugins(parse_text(value.strip(), list[str]))
    return Study.model_validate(data)


def check_settings(study: Study) -> None:
    """Check every setting of every run before the first one starts. Raises ConfigError naming the arm."""
    for where, settings in (
        ("set", study.set),
        *((f"methods, {item.name}", item.set) for item in study.methods),
        ("sweep.set", study.sweep.set if study.sweep else []),
    ):
        for setting in settings:
            key = name_in(setting)
            if key in SET_BY_STUDY:
                raise ConfigError(
                    f"{where}: {key!r} is set by the study; use seeds, method and init of an arm."
                )
            if where == "sweep.set" and not setting.startswith(AFTER_WARMUP):
                raise ConfigError(
                    f"{where}: {key!r} concerns the warm start, which a sweep shares; put it in set."
                )
    for item in study.methods:
        try:
            checked(study.recipe, *run_settings(study, item))
            for knobs in grid(study, item):
                checked(study.recipe, *run_settings(study, item, knobs, sweep=True))
        except ConfigError as error:
            raise ConfigError(f"Arm {item.name!r}: {error}") from error


def check_set_is_read(study: Study, whole: dict[str, Any] | None) -> None:
    """Raises ConfigError for a setting of ``set`` that no arm reads.

    ``whole``: the keys of the file whose arms these are, or some of them. What it sets may be read by others.
    """
    idle = _idle(study)
    if idle and whole is not None:
        file = study_of(whole)
        of_file = _idle(file)
        idle = [text for text in idle if text in of_file or text not in file.set]
    names = ", ".join(item.name for item in study.methods)
    for setting in idle:
        raise ConfigError(
            f"set: {setting}: no arm of this study reads it ({names}), so it would have no effect. Leave it "
            f"out, or give it to an arm that reads it: {_arm_with(setting)}."
        )


def _idle(study: Study) -> list[str]:
    """The settings of ``set`` that no arm reads, also those that arms would be given all the same."""
    return [
        text
        for text, (readers, _) in readers_of_set(study).items()
        if not any(_reads(study, item, text) for item in study.methods if item.name in readers)
    ]


def _reads(study: Study, item: Arm, text: str) -> bool:
    """Whether a run of this arm, in the sweep or after it, reads what the setting ``text`` of ``set`` sets.

    Settings that recipes give for all methods (``Reading.shared``) are never left out of an arm.
    """
    key = current_name(name_in(text), warn=False)
    if key not in READINGS:
        return True
    try:
        runs = [run_config(study, item), *(run_config(study, item, knobs) for knobs in grid(study, item))]
    except ConfigError:  # wrong for other reasons, and refused for them
        return True
    return any(is_read(key, config.method, config.train) for config in runs)


def readers_of_set(study: Study) -> dict[str, tuple[list[str], list[str]]]:
    """Each setting of ``set`` with the arms that take it, and those that do not read it."""
    found: dict[str, tuple[list[str], list[str]]] = {text: ([], []) for text in study.set}
    for item in study.methods:
        taken = arm_settings(study, item)
        for text, (readers, others) in found.items():
            (readers if text in taken else others).append(item.name)
    return found


def notes_on_set(study: Study) -> list[str]:
    """A sentence for each setting of ``set`` that some arms do not read."""
    return [
        f"set: {setting} is read by {', '.join(readers) or 'no arm that is selected'}. {', '.join(others)} "
        f"{'does not read it and runs' if len(others) == 1 else 'do not read it and run'} without it. To set "
        f"it for some arms alone, write it into theirs: {_arm_with(setting)}."
        for setting, (readers, others) in readers_of_set(study).items()
        if others
    ]


def _arm_with(setting: str) -> str:
    return f"{{name: ARM, method: NAME, set: [{setting}]}}"


def run_config(
    study: Study, item: Arm, knobs: dict[str, Any] | None = None, *, sweep: bool = False
) -> RunConfig:
    """The settings that a run of this arm has, seed and start apart; see ``resolved``."""
    return resolved(study.recipe, *run_settings(study, item, knobs, sweep=sweep))


def run_settings(
    study: Study, item: Arm, knobs: dict[str, Any] | None = None, *, sweep: bool = False
) -> list[str]:
    """The overrides of the recipe that make ``run_config``."""
    return [f"method.name={item.method}", *arm_settings(study, item, knobs, sweep=sweep)]


def arm_settings(
    study: Study, item: Arm, knobs: dict[str, Any] | None = None, *, sweep: bool = False
) -> list[str]:
    """Overrides of a training run of this arm, without seed, method and paths; less those of ``left_out``."""
    own = [*(f"{key}={_text(value)}" for key, value in (knobs or {}).items()), *item.set]
    last = study.sweep.set if sweep and study.sweep else []
    common = frozenset([*study.set, *last])
    idle = left_out(study.recipe, item.method, (*study.set, *own, *last), common)
    shared = [text for text in study.set if text not in idle]
    return [*shared, *own, *(text for text in last if text not in idle)]


@lru_cache(maxsize=1024)
def left_out(recipe: str, method: str, settings: tuple[str, ...], common: frozenset[str]) -> frozenset[str]:
    """Those of the ``common`` settings that an arm does not read, where it would be refused with them.

    A study's ``set`` is for all arms, and each takes what it reads. ``settings``: all of the arm's overrides.
    """
    kept, idle = [f"method.name={method}", *settings], set[str]()
    while True:
        try:
            checked(recipe, *kept)
            return frozenset(idle)
        except ConfigError:
            try:
                config = load_finished(recipe, kept)
            except ConfigError:  # the settings are wrong for other reasons, and refused for them
                return frozenset(idle)
        unread_keys = unread(config.method, config.train)
        more = {text for text in kept if text in common and _is_unread(text, config, unread_keys)}
        if not more:
            return frozenset(idle)
        idle |= more
        kept = [text for text in kept if text not in more]


def _is_unread(text: str, config: RunConfig, unread_keys: Iterable[str]) -> bool:
    """Whether a run of ``config`` does not read what the override ``text`` sets."""
    key = current_name(name_in(text), warn=False)
    if key.startswith(ONE_BY_ONE):
        return not is_read(key, config.method, config.train)
    return any(key == unread_key or key.startswith(f"{unread_key}.") for unread_key in unread_keys)


@lru_cache(maxsize=1024)
def checked(recipe: str, *settings: str) -> RunConfig:
    """The settings of a run that is to be trained, cached. Raises ConfigError. Do not modify the result."""
    from repro_rl.run.preflight import unknown_annotator  # imports environments and demonstrations

    return load_config(recipe, list(settings), check=unknown_annotator)


@lru_cache(maxsize=1024)
def resolved(recipe: str, *settings: str) -> RunConfig:
    """The settings of a run, cached: every seed of an arm has the same. The result must not be modified.

    Of an older study they may be such that no training would take them now; its tables can be made again.
    """
    try:
        return checked(recipe, *settings)
    except ConfigError:
        return load_finished(recipe, list(settings))


def forget_settings() -> None:
    """The caches of settings are emptied: files may have changed."""
    left_out.cache_clear()
    checked.cache_clear()
    resolved.cache_clear()


# Sweep --------------------------------------------------------------------------------------------


def grid(study: Study, item: Arm) -> list[dict[str, Any]]:
    """Every combination of the knobs that have an effect on this arm; none for one that is not swept."""
    if study.sweep is None or not item.train or item.tuned_as is not None:
        return []
    knobs = {key: values for key, values in study.sweep.knobs.items() if key not in unused_knobs(study, item)}
    return [dict(zip(knobs, values, strict=True)) for values in itertools.product(*knobs.values())]


def unused_knobs(study: Study, item: Arm) -> set[str]:
    """Settings that change nothing for this arm: a grid over them would only repeat the same run."""
    config = run_config(study, item)
    knobs = study.sweep.knobs if study.sweep else {}
    return {key for key in (*READINGS, *knobs) if not is_read(key, config.method, config.train)}


def label(knobs: dict[str, Any]) -> str:
    """A folder name for a point of the grid: ``gamma-0.5-lr-0.001``."""
    parts = [f"{key.split('.')[-1]}-{json.dumps(value)}" for key, value in knobs.items()]
    return re.sub(r"[^A-Za-z0-9._+-]", "", "-".join(parts)) or "recipe"
