"""Actions that an environment lists or its expert takes, and that no answer of the prompts can hold."""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.envs.base import TextEnv, filled
from repro_rl.envs.contract import PROBED, checked_reset
from repro_rl.errors import ConfigError, counted, some
from repro_rl.text.parse import TextFormat, unreadable


def check_actions(env: TextEnv, task_ids: Sequence[str], fmt: TextFormat, *, expert: bool) -> str | None:
    """Look at the first states of the first tasks; a sentence on listed actions that an answer cannot hold.

    ``expert``: the expert is asked too. It will be asked for demonstrations alone, and may plan for minutes.
    A task that fails tells nothing, and raises nothing here. Raises ConfigError where the expert takes such
    an action: no demonstration of it could be taught.
    """
    lost: dict[str, str] = {}
    for task in task_ids[:PROBED]:
        try:
            listed = checked_reset(env.reset(options={"task": task}))[1]["admissible"]
            answer = env.expert() if expert else None
        except Exception:  # the environment may raise anything
            continue
        if answer is not None and (reason := unreadable(answer, fmt)) is not None:
            raise ConfigError(
                f"The expert of the environment {env.name!r} takes {answer[:80]!r} in {task}, and no answer "
                f"can hold it: {reason}. {remedy(fmt)}"
            )
        for action in listed:
            if (reason := unreadable(filled(action, "x"), fmt)) is not None:
                lost[action] = reason
    if not lost:
        return None
    return (
        f"No answer can hold {counted(len(lost), 'action')} that the environment {env.name!r} lists, such as "
        f"{some([repr(action[:80]) for action in lost])}: {next(iter(lost.values()))}. {remedy(fmt)}"
    )


def remedy(fmt: TextFormat) -> str:
    """What to do about such an action."""
    if fmt.style == "compact":
        return "Name it differently in the environment, or set prompt.style=full."
    return "Name it differently in the environment: without <action>, <progress> and <think>."
