"""What an environment's episodes mean for training: what a win pays, which states are one, which words occur.

All of it may keep the types of the contract and still teach nothing, so ``checker`` looks at played episodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from repro_rl.envs.base import PLACEHOLDER, filled
from repro_rl.envs.checks import Doubt, FailedCheck
from repro_rl.errors import counted

WIN = 10.0  # what a win should pay: the reward terms of the recipes are sized for it
NEAR = 2.0  # times WIN, and divided by it: no doubt within
FEW = 3  # so many different observations of a task, or more, should not all be one state


@dataclass(slots=True, frozen=True)
class Seen:
    """A state of an episode, and the step that led to it."""

    observation: str
    outcome: tuple[Any, ...]  # (reward, terminated, truncated) of the step; () after a reset
    info: dict[str, Any]
    action: str = ""  # of the step

    @property
    def ended(self) -> bool:
        """Whether the step ended the episode."""
        return any(self.outcome[1:])


Played = Sequence[Seen]  # one episode, its reset first


def listed_actions(start: Seen, play: Callable[[str], bool], walks: Iterable[Played]) -> str:
    """All actions listed in the first state, and those that the walks played, must be valid.

    ``play`` plays an action in ``start`` and tells whether it was valid. Free text may be refused. Raises
    FailedCheck, and Doubt where no state lists an action.
    """
    played, listed = 0, 0
    for action in start.info["admissible"]:
        if not PLACEHOLDER.search(action):
            played += 1
            _listed(play(action), action, start)
    for walk in walks:
        listed += sum(len(seen.info["admissible"]) for seen in walk)
        for before, after in itertools.pairwise(walk):
            if after.action in before.info["admissible"]:
                played += 1
                _listed(after.info["valid"], after.action, before)
    if not listed:
        raise Doubt(
            "info['admissible'] is always empty: prompts list no actions, and the noisy expert of the "
            "demonstrations has no mistakes to draw (set demos.failing=0)"
        )
    return f"{counted(played, 'listed action')} played, all valid"


def _listed(valid: object, action: str, state: Seen) -> None:
    if not valid:
        raise FailedCheck(
            f"task {state.info['task_id']}: info['admissible'] lists {action!r}, and step gives valid=False"
        )


def payment(wins: Sequence[Played], idle: Played) -> str:
    """What a win pays in all, and an episode of empty actions.

    Raises FailedCheck unless a win pays more, and Doubt where it pays far from ``WIN``.
    """
    if not wins:
        return "no win was played"
    paid, lost = sorted(map(_total, wins)), _total(idle)
    span = f"{paid[0]:g}" if paid[0] == paid[-1] else f"{paid[0]:g} to {paid[-1]:g}"
    said = f"a win pays {span}, an episode of empty actions {lost:g}"
    if paid[0] <= lost:
        raise FailedCheck(f"{said}: rewards must tell them apart; pay {WIN:g} for a win")
    if not WIN / NEAR <= paid[0] <= paid[-1] <= WIN * NEAR:
        raise Doubt(f"{said}; the other reward terms of the recipes are sized for {WIN:g} a win")
    return said


def _total(episode: Played) -> float:
    return sum(float(seen.outcome[0]) for seen in episode[1:])


def state_keys(tasks: Sequence[Sequence[Played]], idle: Played) -> str:
    """How many anchors the episodes of each task have. Raises Doubt where they tell nothing apart or all."""
    keys = observations = 0
    constant = []  # of each task with enough observations, whether it has one anchor
    for episodes in tasks:
        states = [seen for episode in episodes for seen in episode]
        anchors, texts = {seen.info["anchor"] for seen in states}, {seen.observation for seen in states}
        keys, observations = keys + len(anchors), observations + len(texts)
        if len(texts) >= FEW:
            constant.append(len(anchors) == 1)
    said = f"{counted(keys, 'anchor')} for {counted(observations, 'different observation')}"
    remedy = "method.anchor_key=observation compares by what the agent sees"
    if all(seen.info["anchor"] is None for episodes in tasks for episode in episodes for seen in episode):
        raise Doubt(f"info['anchor'] is always None: all states of a task count as one; {remedy}")
    if constant and all(constant):
        raise Doubt(f"{said}: all states of a task count as one; {remedy}")
    still = len({seen.observation for seen in idle[1:]}) == 1 and not any(
        seen.info["valid"] for seen in idle[1:]
    )
    if still and len(idle) > FEW and len({seen.info["anchor"] for seen in idle}) == len(idle):
        raise Doubt(
            "info['anchor'] changes with every step, also where nothing happens: no state is met twice, so "
            "there is nothing to compare; leave the step number out of it"
        )
    return said


def known_words(vocabulary: Iterable[str], episodes: Iterable[Played]) -> str:
    """Whether the vocabulary holds the words of these episodes. Raises Doubt, naming some that it lacks."""
    known = set(vocabulary)
    if not known:
        return "no vocabulary(): a tiny model knows the words of the demonstrations"
    missing: dict[str, str] = {}
    for episode in episodes:
        for seen in episode:
            for where, text in _texts(seen):
                missing |= {word: where for word in text.split() if word not in known and word not in missing}
    if missing:
        some = ", ".join(f"{word!r} ({where})" for word, where in list(missing.items())[:3])
        raise Doubt(
            f"vocabulary() lacks {counted(len(missing), 'word')}, such as {some}: a tiny model does not know "
            "them, unless they are in the demonstrations"
        )
    return f"{counted(len(known), 'word')}, those of the played episodes among them"


def _texts(seen: Seen) -> Iterator[tuple[str, str]]:
    """The texts that compact prompts and answers hold, with where they stand."""
    yield "observation", seen.observation
    yield "info['brief']", str(seen.info.get("brief", ""))
    for action in seen.info["admissible"]:
        yield "info['admissible']", filled(action, "")
