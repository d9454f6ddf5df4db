"""A model behind a server, as a policy that acts."""

from __future__ import annotations

from pathlib import Path

from repro_rl.config import API, ApiSection, PromptSection
from repro_rl.errors import ConfigError
from repro_rl.policy.http import ChatClient, HttpPolicy
from repro_rl.policy.http.request import UNGUIDED


def api_policy(
    api: ApiSection, prompt: PromptSection, name: str | Path, *, reflects: bool = True
) -> HttpPolicy:
    """The model ``api:MODEL`` behind the server of the section ``api``.

    ``reflects``: it will be asked for reflections, too. Raises ConfigError with compact prompts, which state
    neither rules nor goal, and for guided reflections where ``api.guided`` names no way to ask for them.
    """
    if prompt.style == "compact":
        raise ConfigError(
            "An API model cannot read the compact prompts of tiny models; use a recipe in full style, such "
            "as -c sokoban-qwen3, or prompt.style=full."
        )
    if reflects and prompt.reflect_form == "guided" and api.guided == "off":
        raise ConfigError(UNGUIDED)  # here, and not after episodes that were paid for
    return HttpPolicy(ChatClient(api.model_copy(update={"model": str(name).removeprefix(API)})))
