"""The folder of a study: study.json says what was compared, by which commands, on which tasks."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from repro_rl.config import RunConfig
from repro_rl.config.changes import Change, change_lines, differences
from repro_rl.config.memory_settings import MEMORY_SETTINGS, continued_sentence, why_fixed
from repro_rl.config.paths import BASE, base_entry
from repro_rl.config.recipe_files import is_yaml_file, read_settings
from repro_rl.config.renamed import current_name
from repro_rl.config.trust import risky_overrides
from repro_rl.errors import ConfigError
from repro_rl.files import check_record, read_json, read_json_if_any, sweep_temporaries, write_json
from repro_rl.files.records import Text
from repro_rl.files.signature import has_signature, signature
from repro_rl.run.evaluations import evaluation_files, read_evaluation
from repro_rl.run.folder import (
    flatten,
    git_revision,
    has_work as run_has_work,
    versions,
)
from repro_rl.run.folder_kind import check_kind
from repro_rl.run.templates import check_same_templates, prompt_digests
from repro_rl.study.definition import AFTER_WARMUP, Study, run_config
from repro_rl.study.jobs import Job
from repro_rl.study.memory_changes import fixed_memory, lasting, memory_changes
from repro_rl.study.runner import command_line, commands_of, read_record

FILE = "study.json"
RECIPE = "recipe"  # key of what the recipe's file held, dotted
TEMPLATES = "templates"  # key of the digests of every arm's prompt templates
OF_EVALUATIONS = ("api.", *(f"eval.{name}" for name in ("split", "tasks", "rollouts", "temperature")))
CHANGES = "memory_changes"  # key of the memory settings that were changed: name -> [before, now]
SIGNATURE = "written_here"  # key of this account's hash of the study in it


class _Arm(TypedDict):
    """A method of a study."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    name: Text


class _Settings(TypedDict):
    """What was compared."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    methods: NotRequired[list[_Arm]]


class _StudyFile(TypedDict):
    """study.json."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    study: _Settings
    jobs: NotRequired[dict[Text, dict[str, Any]]]
    recipe: NotRequired[dict[Text, Any]]
    templates: NotRequired[dict[Text, dict[str, Text]]]
    continued: NotRequired[list[dict[str, Any]]]
    memory_changes: NotRequired[list[dict[str, Any]]]


def read_study(out: Path) -> dict[str, Any] | None:
    """study.json, None when there is none. Raises DataError when it is broken."""
    path = out / FILE
    if not path.exists():
        return None
    return check_record(_StudyFile, read_json(path, "study"), file=path)  # type: ignore[return-value]


def go_to_base(out: Path) -> Path:
    """Change to the directory that the paths of the study in ``out`` start from; ``out`` as seen from there.

    Nothing happens without such a study, and where that directory is not there any more.
    """
    base = (read_study(out) or {}).get(BASE)
    folder = Path(os.path.normpath(out.absolute() / base)) if isinstance(base, str) else None
    if folder is None or not folder.is_dir() or folder == Path.cwd():
        return out
    out = out.absolute()
    os.chdir(folder)
    return out


def check_same(out: Path, study: Study) -> None:
    """A folder holds one study: arms, seeds and budget may be added to; memory settings may be others.

    Nothing else may change. The contents of the recipe's file and of prompt templates count as well. Raises
    ConfigError naming what differs. Another evaluation is made beside the old one. Warns of other memory
    settings; where an arm has an adapter with dropout, these may not change either.
    """
    check_kind(out, "study")
    old = read_study(out)
    if old is None:
        return
    begun = has_work(out)
    if not (begun or _has_warm_start(out)):
        return
    memory = _memory_changes(old, study)
    fixed = fixed_memory(study, [arm["name"] for arm in old["study"].get("methods", [])])
    why = why_fixed(name.rpartition(" ")[2] for name, _, _ in memory) if fixed else ""
    _check_recipe(out, study, old.get(RECIPE), why, free=() if fixed else MEMORY_SETTINGS)
    _check_templates(out, study, old)
    if begun:
        then, now = old["study"], study.model_dump(mode="json")
        if not fixed:
            then, now = lasting(then), lasting(now)
        _check_study(out, then, now, why)
    if memory:
        warnings.warn(continued_sentence(out, memory), stacklevel=2)


def _check_study(out: Path, then: dict[str, Any], now: dict[str, Any], why: str) -> None:
    """Raises ConfigError where the keys of a study differ; ``why``: a line for its message."""
    changed = []
    for key in ("recipe", "set", "sweep"):
        changed += differences(flatten(then.get(key), key), flatten(now[key], key))
    arms = {arm["name"]: arm for arm in then.get("methods", [])}
    changed += [
        (f"arm {arm['name']}", arms[arm["name"]], arm)
        for arm in now["methods"]
        if arm["name"] in arms and arms[arm["name"]] != arm
    ]
    budgets = then.get("env_steps"), now["env_steps"]
    if None not in budgets and budgets[0] > budgets[1]:
        changed.append(("env_steps", *budgets))
    if changed:
        raise ConfigError(
            f"{out} holds another study:\n{change_lines(changed)}\n{why}"
            "Use another folder, or the same settings to continue. Methods and seeds may be added, and the "
            "budget raised."
        )


def _memory_changes(old: dict[str, Any], study: Study) -> list[Change]:
    """The memory settings of ``study`` that are not those of ``old``, a study.json.

    Studies of older versions do not tell the recipe's.
    """
    recipe = _recipe_settings(study)
    now = study.model_dump(mode="json")
    return memory_changes((old["study"], old.get(RECIPE, recipe)), (now, recipe))


def _check_templates(out: Path, study: Study, old: dict[str, Any]) -> None:
    """Raises ConfigError where an arm's prompts are made from others than when ``old`` was written.

    Studies of older versions do not tell.
    """
    before = old.get(TEMPLATES, {})
    for item in study.methods:
        if before and item.name not in before:  # an arm that is new
            continue
        config = run_config(study, item)
        then = {"versions": old.get("versions"), **before.get(item.name, {})}
        check_same_templates(out, config.prompt, then, config.method.reflect)


def _has_warm_start(out: Path) -> bool:
    return any(map(run_has_work, out.glob("warm/*/warmup")))


def _check_recipe(
    out: Path, study: Study, before: dict[str, Any] | None, why: str, free: Sequence[str]
) -> None:
    """Raises ConfigError where the recipe has other settings than ``before``, as far as a run has used them.

    ``free``: settings that may differ; ``why``: a line for its message. Studies of older versions do not
    tell.
    """
    if before is None:
        return
    begun = has_work(out)
    before = {current_name(name, warn=False): value for name, value in before.items()}
    changed = [
        change
        for change in differences(before, _recipe_settings(study))
        if not change[0].startswith(OF_EVALUATIONS)
        and (begun or not change[0].startswith(AFTER_WARMUP))
        and change[0] not in free
    ]
    if changed:
        raise ConfigError(
            f"{study.recipe} was changed since {out} was begun:\n{change_lines(changed)}\n{why}"
            "Use another folder, or put the recipe back to continue."
        )


def _digests(config: RunConfig) -> dict[str, str]:
    return prompt_digests(config.prompt, config.method.reflect)


def _recipe_settings(study: Study) -> dict[str, Any]:
    """What the recipe and its bases give, dotted, as JSON has it."""
    settings: dict[str, Any] = json.loads(json.dumps(flatten(read_settings(study.recipe)), default=str))
    return settings


def check_own(out: Path, content: dict[str, Any], allow: Callable[[str], bool]) -> None:
    """A study that somebody else made must not bring settings that are not trusted (see ``config.trust``).

    ``allow`` answers a question about them. Raises ConfigError naming them.
    """
    if has_signature(_canonical(content["study"]), content.get(SIGNATURE)):
        return
    study = Study.model_validate(content["study"])
    overrides = [*study.set, *(setting for arm in study.methods for setting in arm.set)]
    if study.sweep is not None:
        overrides += [*study.sweep.set, *(f"{name}=..." for name in study.sweep.knobs)]
    found = [
        *([f"recipe: {study.recipe}"] if is_yaml_file(study.recipe) else []),
        *risky_overrides(overrides),
    ]
    text = (
        f"{out / FILE} was not written on this account, or was edited since, and has settings that are not "
        "trusted, as they may run code, reach the network or read files:\n  " + "\n  ".join(found)
    )
    if found and not allow(text):
        raise ConfigError(f"{text}\nGive the study itself: repro-rl compare STUDY.yaml -o {out}")


def _canonical(study: dict[str, Any]) -> str:
    return json.dumps(study, sort_keys=True)


def has_work(out: Path) -> bool:
    """Whether any run of the study has begun; a study whose runs all failed at once may be corrected.

    Warm starts have settings of their own, which they check themselves.
    """
    return any(run_has_work(run) for run in [*out.glob("runs/*/*"), *out.glob("sweep/*/*/*")])


def sweep_study(out: Path) -> None:
    """Remove what killed commands left half-written beside the runs, which sweep their own folders."""
    for folder in (out, out / "jobs"):
        sweep_temporaries(folder)


def write_study(out: Path, study: Study, jobs: Sequence[Job], *, parallel: int) -> None:
    """Rewrite study.json; it lists the first start and every continuation.

    ``commands`` of a job are as typed, with {out} for this folder, so that the folder can be moved.
    """
    old = read_study(out) or {}
    base = {BASE: old[BASE]} if BASE in old else base_entry(out)
    now = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_revision(),
        "versions": versions(),
        "parallel": parallel,
    }
    recorded = dict(old.get("jobs") or {})
    for job in jobs:
        record = read_record(out, job)
        recorded[job.name] = {
            "stage": job.stage,
            "after": list(job.after),
            "commands": [command_line(command) for command in commands_of(out, job)],
            "status": record.get("status", "not run"),
            "seconds": record.get("seconds"),
        }
    settings = study.model_dump(mode="json")
    changes = list(old.get(CHANGES, []))
    if old and (has_work(out) or _has_warm_start(out)) and (changed := _memory_changes(old, study)):
        changes.append({name: [before, after] for name, before, after in changed})
    write_json(
        out / FILE,
        {
            **{key: old.get(key, value) for key, value in now.items()},
            **base,
            "continued": [*old.get("continued", []), *([now] if old else [])],
            **({CHANGES: changes} if changes else {}),
            "hardware": {"machine": platform.machine(), "cpus": os.cpu_count()},
            "study": settings,
            RECIPE: _recipe_settings(study),
            TEMPLATES: {item.name: _digests(run_config(study, item)) for item in study.methods},
            SIGNATURE: signature(_canonical(settings)),
            "panels": panels(out),
            "jobs": recorded,
        },
    )


def panels(out: Path) -> dict[str, list[str]]:
    """Every task panel that a run of the study used: {digest: names and labels}."""
    names: dict[str, set[str]] = {}
    for path in sorted([*out.glob("runs/*/*/manifest.json"), *out.glob("sweep/*/*/*/manifest.json")]):
        held = read_json_if_any(path).get("panels") or {}
        for name, panel in check_record(dict[str, dict[str, Any]], held, file=path).items():
            names.setdefault(str(panel.get("digest")), set()).add(f"{name}: {panel.get('label')}")
    for path in (path for run in sorted(out.glob("runs/*/*")) for path in evaluation_files(run)):
        data = read_evaluation(path)
        names.setdefault(str(data.get("digest")), set()).add(f"evaluation: {data.get('panel')}")
    return {digest: sorted(labels) for digest, labels in sorted(names.items())}
