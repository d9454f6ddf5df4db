"""API models on the command line: how they are named, and what is printed about their use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_rl.errors import ConfigError, counted

if TYPE_CHECKING:
    from repro_rl.config import RunConfig
    from repro_rl.policy.http import HttpPolicy


def api_model(path: Path) -> str | None:
    """MODEL of ``api:MODEL``; None for anything else. Raises ConfigError when it is empty."""
    from repro_rl.config import API

    if not str(path).startswith(API):
        return None
    model = str(path).removeprefix(API)
    if not model:
        raise ConfigError("Name the model as its server calls it: api:MODEL, such as api:deepseek-chat.")
    return model


def api_run(model: str, kind: str = "api") -> Path:
    """The run folder of an API model's evaluations, or a hub model's, unless --out says otherwise."""
    return Path("runs") / f"{kind}-{re.sub(r'[^A-Za-z0-9._-]+', '-', model)}"


def usage_notes(result: dict[str, Any]) -> list[str]:
    """What an evaluation used, and what was lost, line by line."""
    from repro_rl.policy.http.usage import usage_lines

    lost = (
        f"  {counted(int(result['errors']), 'episode')} broke off, counted as not won."
        if result["errors"]
        else ""
    )
    again = " Repeat the command: only what has no answer is asked again." if result["api"]["failed"] else ""
    used, *losses = usage_lines(result["api"])
    return [f"{used}{lost}{again}", *losses]


@contextmanager
def api_agent(config: RunConfig, agent: Path | None) -> Iterator[HttpPolicy | None]:
    """The model ``agent`` for a whole command, which has one budget; None where it is behind no API.

    It acts, and is not asked for reflections.
    Says at the end, also after an error, what the command has used. Raises ConfigError as ``api_policy``.
    """
    from repro_rl.cli.show import say
    from repro_rl.policy.http.usage import usage_lines
    from repro_rl.run.api_model import api_policy

    if agent is None or api_model(agent) is None:
        yield None
        return
    with closing(api_policy(config.api, config.prompt, agent, reflects=False)) as policy:
        try:
            yield policy
        finally:
            counts = policy.client.failures.counts
            if counts.answered or counts.lost:
                for line in usage_lines(policy.client.spending.summary()):
                    say(line)


def annotation_notes(notes: dict[str, Any], written: Path) -> list[str]:
    """What a batch annotator did, line by line; nothing for the others.

    ``written``: the file that marks the demonstrations as complete.
    """
    from repro_rl.policy.http.usage import usage_lines

    if not notes:
        return []
    lines = []
    if "usage" in notes:
        used, *losses = usage_lines(notes["usage"])
        lines += [f"{notes['model']}: {used}", *losses]
    if notes["unlabelled"]:
        why = ", ".join(f"{name} {count}" for name, count in notes["defects"].items())
        lines.append(
            f"{notes['unlabelled']} of {notes['episodes']} episodes stay unlabelled ({why}); they are kept, "
            "but no reflection is taught on them."
        )
        if notes["defects"].get("no_answer"):
            lines.append(f"To ask again where there was no answer: delete {written} and repeat the command.")
    return lines
