"""Whether the answers of a model can hold an environment's actions: the parser reads them out of its text."""

from __future__ import annotations

from collections.abc import Iterable

from repro_rl.envs.base import filled
from repro_rl.envs.checks import Doubt, FailedCheck
from repro_rl.envs.meaning import Played
from repro_rl.errors import counted, some
from repro_rl.text.parse import TextFormat, unreadable

STYLES = {"compact": TextFormat("compact"), "full": TextFormat("full")}


def read_back(episodes: Iterable[Played]) -> str:
    """How many actions read back from an answer: those that were listed, and those that were played.

    Raises FailedCheck for one that no style can hold. Raises Doubt for one that only one of them can, and for
    one whose blanks an answer loses.
    """
    actions: dict[str, None] = {}
    for episode in episodes:
        for number, seen in enumerate(episode):
            actions |= dict.fromkeys(filled(action, "x") for action in seen.info["admissible"])
            actions |= {seen.action: None} if number else {}
    lost = {
        style: {action: reason for action in actions if (reason := unreadable(action, fmt)) is not None}
        for style, fmt in STYLES.items()
    }
    never = [action for action in lost["compact"] if action in lost["full"]]
    if never:
        raise FailedCheck(
            f"no answer can hold {_named(never)}: {lost['full'][never[0]]}; give it a name without tags"
        )
    for style, other in (("compact", "full"), ("full", "compact")):
        if found := list(lost[style]):
            raise Doubt(
                f"with prompt.style={style} no answer can hold {_named(found)}: {lost[style][found[0]]}; "
                f"name it differently, or set prompt.style={other}"
            )
    if blanks := [action for action in actions if action != " ".join(action.split())]:
        raise Doubt(
            f"an answer loses blanks and line breaks of {_named(blanks)}: compact answers have single ones, "
            "full ones none at the ends; name it without them, or see that step() takes it so"
        )
    return f"{counted(len(actions), 'action')} read back from an answer, in both styles"


def _named(actions: list[str]) -> str:
    return f"{counted(len(actions), 'action')} ({some([repr(action[:60]) for action in actions])})"
