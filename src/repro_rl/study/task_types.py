"""Success per task type, for environments whose tasks have one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from repro_rl.study.stats import wilson

# ALFWorld's types as the papers' tables name and order them (ReAct, GiGPO, RePro).
SHORT_NAMES = {
    "pick_and_place_simple": "Pick",
    "look_at_obj_in_light": "Look",
    "pick_clean_then_place_in_recep": "Clean",
    "pick_heat_then_place_in_recep": "Heat",
    "pick_cool_then_place_in_recep": "Cool",
    "pick_two_obj_and_place": "Pick2",
}
_ORDER = {name: index for index, name in enumerate(SHORT_NAMES)}


def short_name(task_type: str) -> str:
    """The papers' name of a type; any other type as it is."""
    return SHORT_NAMES.get(task_type, task_type)


def type_order(task_type: str) -> tuple[int, str]:
    """Sort key: the papers' order, then the alphabet."""
    return _ORDER.get(task_type, len(_ORDER)), task_type


def success_by_type(
    outcomes: Iterable[tuple[str, bool]], task_type: Callable[[str], str | None]
) -> dict[str, dict[str, Any]]:
    """{type: {episodes, won, success, low, high}} from (task id, won) pairs, in the papers' order.

    ``low``, ``high``: 95 % Wilson interval over episodes. Tasks without a type (``task_type`` gives None) are
    left out; {} when none has one.
    """
    by_kind: dict[str, list[bool]] = {}
    for task, success in outcomes:
        kind = task_type(task)
        if kind is not None:
            by_kind.setdefault(kind, []).append(success)
    result: dict[str, dict[str, Any]] = {}
    for kind in sorted(by_kind, key=type_order):
        won, episodes = sum(by_kind[kind]), len(by_kind[kind])
        low, high = wilson(won, episodes)
        result[kind] = {
            "episodes": episodes,
            "won": won,
            "success": won / episodes,
            "low": low,
            "high": high,
        }
    return result
