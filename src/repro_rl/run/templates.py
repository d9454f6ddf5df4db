"""The prompt templates of a run, by the digests in its manifest: a continuation must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import repro_rl
from repro_rl.config import PromptSection
from repro_rl.errors import ConfigError
from repro_rl.text.digests import OWN, PACKAGE, template_digests


def prompt_digests(prompt: PromptSection, reflects: bool) -> dict[str, str]:
    """The digests of the templates that prompts of these settings use, for a manifest.

    ``reflects``: whether the method asks for reflections. Raises ConfigError where a template cannot be read.
    """
    chat = prompt.context == "chat"
    return template_digests(prompt.style, prompt.template_dir, chat=chat, reflects=reflects)


def other_announcement(prompt: PromptSection, before: Mapping[str, Any], reflects: bool) -> bool:
    """Whether prompts of ``before``, a manifest, differ from these in announcing a reflection alone.

    Versions whose manifests hold no digest announced it under every method.
    """
    then, now = before.get(PACKAGE), prompt_digests(prompt, reflects)
    other = prompt_digests(prompt, not reflects)
    if then is None:
        return bool(before) and not reflects and now != other
    return now[PACKAGE] != then == other[PACKAGE] and before.get(OWN) == other.get(OWN)


def changed_templates(prompt: PromptSection, before: Mapping[str, Any], reflects: bool) -> str | None:
    """What was changed since ``before``, a manifest, was written, and how it is put back; None for nothing.

    Two parts of a sentence. ``reflects`` as for ``prompt_digests``. Manifests of older versions do not tell.
    """
    now = prompt_digests(prompt, reflects)
    if before.get(OWN) not in (None, now.get(OWN)):
        return f"the templates in {prompt.template_dir} were changed since. Put them back"
    unannounced = not reflects and other_announcement(prompt, before, reflects)
    if unannounced or before.get(PACKAGE) not in (None, now[PACKAGE]):
        versions = before.get("versions")
        then = versions.get("repro-rl") if isinstance(versions, Mapping) else None
        told = "the templates of this package were changed since"
        if unannounced:
            told = (
                "the first turn of its conversations announced a reflection, which its method never asks "
                "for, and the templates of this package do so no longer"
            )
        return (
            f"{told} (it is {repro_rl.__version__}, and was "
            f"{then or 'another version'}). Install that version again"
        )
    return None


def check_same_templates(
    folder: Path, prompt: PromptSection, before: Mapping[str, Any], reflects: bool
) -> None:
    """Raises ConfigError where what ``folder`` holds was made with other templates.

    ``before``: its manifest; see ``changed_templates``.
    """
    changed = changed_templates(prompt, before, reflects)
    if changed is not None:
        raise ConfigError(
            f"{folder} was made with other prompts: {changed} to continue, or use another folder."
        )
