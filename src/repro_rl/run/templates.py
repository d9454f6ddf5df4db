"""The prompt templates of a run, by the digests in its manifest: a continuation must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import repro_rl
from repro_rl.config import PromptSection
from repro_rl.errors import ConfigError
from repro_rl.text.digests import OWN, PACKAGE, template_digests


def prompt_digests(prompt: PromptSection) -> dict[str, str]:
    """The digests of the templates that prompts of these settings use, for a manifest.

    Raises ConfigError where a template cannot be read.
    """
    return template_digests(prompt.style, prompt.template_dir, chat=prompt.context == "chat")


def changed_templates(prompt: PromptSection, before: Mapping[str, Any]) -> str | None:
    """What was changed since ``before``, a manifest, was written, and how it is put back; None for nothing.

    Two parts of a sentence. Manifests of older versions do not tell.
    """
    now = prompt_digests(prompt)
    if before.get(OWN) not in (None, now.get(OWN)):
        return f"the templates in {prompt.template_dir} were changed since. Put them back"
    if before.get(PACKAGE) not in (None, now[PACKAGE]):
        versions = before.get("versions")
        then = versions.get("repro-rl") if isinstance(versions, Mapping) else None
        return (
            f"the templates of this package were changed since (it is {repro_rl.__version__}, and was "
            f"{then or 'another version'}). Install that version again"
        )
    return None


def check_same_templates(folder: Path, prompt: PromptSection, before: Mapping[str, Any]) -> None:
    """Raises ConfigError where what ``folder`` holds was made with other templates.

    ``before``: its manifest; see ``changed_templates``.
    """
    changed = changed_templates(prompt, before)
    if changed is not None:
        raise ConfigError(
            f"{folder} was made with other prompts: {changed} to continue, or use another folder."
        )
