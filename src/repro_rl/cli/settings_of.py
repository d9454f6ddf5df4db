"""What ``repro-rl settings`` says of recipes, settings files, studies and annotators."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from repro_rl.cli.about import first_comment, first_sentence

if TYPE_CHECKING:
    from repro_rl.config.reference import SectionReference

STUDY_TYPES = {"methods": "list of arms", "evaluation": "section", "sweep": "section"}
# Settings of ``api`` that the annotator http reads beside those that decide on answers.
SERVER = ("base_url", "key_env", "budget.calls", "budget.tokens", "budget.money")


def further_names() -> dict[str, list[Callable[[], SectionReference]]]:
    """Each name with what describes it; a name may be one of several kinds."""
    from repro_rl.config.recipe_files import SHIPPED as RECIPES, recipe_names
    from repro_rl.demos import ANNOTATORS
    from repro_rl.study.definition import SHIPPED as STUDIES, studies

    found: dict[str, list[Callable[[], SectionReference]]] = {}
    for name in recipe_names():
        found.setdefault(name, []).append(lambda name=name: _recipe(name, RECIPES))  # type: ignore[misc]
    for name in studies():
        found.setdefault(name, []).append(lambda name=name: _study(name, STUDIES))  # type: ignore[misc]
    for name in ANNOTATORS:
        found.setdefault(name, []).append(lambda name=name: _annotator(name))  # type: ignore[misc]
    return found


def of_file(name: str) -> SectionReference:
    """What a settings file of the user sets. Raises ConfigError where it is missing or broken."""
    from repro_rl.config.recipe_reference import recipe_section

    return recipe_section(name, "settings file.")


def _recipe(name: str, folder: Traversable) -> SectionReference:
    from repro_rl.config.recipe_reference import recipe_section

    return recipe_section(name, f"recipe. {_head(folder, name)} Use it with -c {name}.")


def _head(folder: Traversable, name: str) -> str:
    return first_comment(folder.joinpath(f"{name}.yaml").read_text("utf-8"))


def _study(name: str, folder: Traversable) -> SectionReference:
    """The keys of a study that are not left at their defaults; arms by their names."""
    from repro_rl.config.reference import SectionReference, Setting, type_text, yaml_text
    from repro_rl.study.definition import Study, load_study

    study = load_study(name)
    rows = []
    for key, info in Study.model_fields.items():
        value = getattr(study, key)
        if key == "methods":
            value = [arm.name for arm in study.methods]
        elif value == info.get_default(call_default_factory=True):
            continue
        elif key in STUDY_TYPES:
            value = value.model_dump(mode="json", exclude_defaults=True)
        rows.append(
            Setting(key, STUDY_TYPES.get(key, type_text(info)), yaml_text(value), info.description or "")
        )
    about = (
        f"study. {_head(folder, name)} 'repro-rl compare {name}' runs it, with --dry-run it prints commands."
    )
    return SectionReference(name, f"{about} Keys of its file:", tuple(rows), "value")


def _annotator(name: str) -> SectionReference:
    from repro_rl.config.reference import SectionReference, run_settings
    from repro_rl.demos import ANNOTATORS, BatchAnnotator
    from repro_rl.demos.http import ANNOTATION
    from repro_rl.policy.http.identity import DECIDING

    annotator = ANNOTATORS.get(name)
    about = f"annotator. {first_sentence(annotator)} For demos.annotator={name}."
    if name == "http":
        known = run_settings()
        keys = dict.fromkeys(f"api.{key}" for key in (*SERVER, *DECIDING, *ANNOTATION))
        return SectionReference(name, f"{about} It reads:", tuple(known[key] for key in keys))
    if isinstance(annotator, BatchAnnotator):
        return SectionReference(name, f"{about} It may read any setting.", ())
    return SectionReference(name, f"{about} It reads no settings of its own.", ())
