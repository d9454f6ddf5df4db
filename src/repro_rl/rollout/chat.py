"""Episodes as conversations: act turn by turn, then judge in the last turn, on one growing context.

Room (our decision). A conversation has at most ``ChatRoom.conversation`` tokens, and what the reflection
needs is kept free from the start, so it always fits. A turn longer than ``ChatRoom.turn`` has its observation
shortened (full style). When the next turn and its answer no longer fit, the episode ends there as truncated,
with ``context_full`` set, and is judged as the failure it is; earlier turns are never dropped, because what
was sampled with them could not be trained on without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro_rl.policy.base import Policy, SamplingSettings
from repro_rl.policy.chat import ChatSession, open_chat
from repro_rl.random_streams import name_key, stream_keys
from repro_rl.rollout.fit import LEAST, Fitted, largest_room, shorten
from repro_rl.rollout.forward import (
    Demonstrations,
    EnvPool,
    Job,
    Live,
    begin_episodes,
    take_step,
)
from repro_rl.rollout.reflect import Judge, by_sampling, read_reflection
from repro_rl.text.chat import ChatPrompts
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Completion, Trajectory

Size = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class ChatRoom:
    """Limits in tokens."""

    conversation: int  # all turns and answers, the reflection included
    turn: int  # one user turn
    answer: int  # longest forward completion
    reflection: int  # longest reflection completion
    together: int  # of all conversations played at once, each at its longest

    def at_once(self) -> int:
        return max(1, self.together // self.conversation)


def run_chats(
    pool: EnvPool,
    jobs: Sequence[Job],
    policy: Policy,
    prompts: PromptBuilder,
    sampling: SamplingSettings,
    *,
    stream: object,
    room: ChatRoom,
    judge: Judge | None = None,
    live: int = 512,
    demonstrations: Demonstrations | None = None,
    on_step: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Play every job once as a conversation. Arguments and errors as in ``run_episodes``.

    ``judge``: sampling of the reflection, which fills ``trajectory.reflection`` of every episode that has
    steps and no error; None leaves it out (its room stays reserved, so the same episodes are played). At
    most ``live`` episodes at once, fewer where ``room.together`` says so; the result does not depend on it.
    A first turn that does not fit ends its episode with ``error`` set.
    """
    count = min(live, room.at_once())
    turns = ChatPrompts(prompts)
    done: list[Trajectory] = []
    for start in range(0, len(jobs), count):
        session = open_chat(policy)
        episodes, trajectories = begin_episodes(pool, jobs[start : start + count], stream, demonstrations)
        _act(episodes, session, turns, sampling, room, keep=judge is not None, on_step=on_step)
        if judge is not None:
            _judge(episodes, session, turns, judge, room, stream)
        done += trajectories
    return done


def _act(
    episodes: list[Live],
    session: ChatSession,
    prompts: ChatPrompts,
    sampling: SamplingSettings,
    room: ChatRoom,
    *,
    keep: bool,
    on_step: Callable[[int], None] | None,
) -> None:
    live = list(enumerate(episodes))
    known: dict[tuple[str, int], int] = {}  # what a reflection needs
    t = 0
    while live:
        t += 1
        ready: list[tuple[int, Live]] = []
        fitted: list[Fitted] = []
        for row, episode in live:
            prompt = fitting_turn(session, prompts, room, row, episode, t, known)
            if prompt is not None:
                ready.append((row, episode))
                fitted.append(prompt)
            elif t == 1:
                episode.trajectory.error = (
                    f"the first turn is longer than {room.turn} tokens, or leaves no room"
                )
            else:
                episode.trajectory.context_full = episode.trajectory.truncated = True
        still: list[tuple[int, Live]] = []
        if ready:
            keys = stream_keys(0, np.array([e.key for _, e in ready], dtype=np.uint64), t)
            completions = session.answer(
                [row for row, _ in ready], [prompt.text for prompt in fitted], keys, sampling
            )
            still = [
                (row, episode)
                for (row, episode), prompt, completion in zip(ready, fitted, completions, strict=True)
                if take_step(episode, completion, prompt, prompts.fmt, t)
            ]
        going = {row for row, _ in still}
        for row, episode in live:
            if row not in going and (not keep or episode.trajectory.error is not None):
                session.close(row)
        if on_step is not None:
            on_step(len(live) - len(still))
        live = still


def _judge(
    episodes: Sequence[Live],
    session: ChatSession,
    prompts: ChatPrompts,
    judge: Judge,
    room: ChatRoom,
    stream: object,
) -> None:
    rows: list[int] = []
    asked: list[tuple[str, bool]] = []
    for row, episode in enumerate(episodes):
        trajectory = episode.trajectory
        if trajectory.steps and trajectory.error is None:
            rows.append(row)
            left = room.conversation - session.used(row) - room.reflection
            asked.append(fitting_question(trajectory, prompts, session.size, min(left, room.turn)))
    if not rows:
        return
    known = [episodes[row].trajectory for row in rows]
    keys = np.array([name_key(stream, "reflect", t.task_id, t.rollout) for t in known], dtype=np.uint64)
    for sampling, places in by_sampling(known, judge).items():
        texts = [asked[place][0] for place in places]
        completions = session.answer([rows[place] for place in places], texts, keys[places], sampling)
        for place, completion in zip(places, completions, strict=True):
            text, cut = asked[place]
            known[place].reflection = read_reflection(known[place], text, completion, prompts.fmt, cut)
            session.close(rows[place])


def reserved(prompts: ChatPrompts, size: Size, room: ChatRoom, goal: str, steps: int) -> int:
    """Tokens that the reflection on ``steps`` steps needs at the most, without the last observation."""
    outcomes = ((True, 1.0), (False, 0.0), (False, 0.55))
    return room.reflection + max(
        size(prompts.reflect(goal=goal, observation="", length=steps, won=won, score=score))
        for won, score in outcomes
    )


def fitting_turn(
    session: ChatSession,
    prompts: ChatPrompts,
    room: ChatRoom,
    row: int,
    episode: Live,
    t: int,
    known: dict[tuple[str, int], int],
) -> Fitted | None:
    """The user turn of step ``t``: None when it is too long, or leaves no room for what must follow.

    ``known`` remembers what ``reserved`` said.
    """
    goal = episode.trajectory.goal
    if (goal, t) not in known:
        known[goal, t] = reserved(prompts, session.size, room, goal, t)
    return fit_turn(
        prompts,
        lambda text: session.size(text, first=t == 1),
        room.turn,
        room.conversation - session.used(row) - room.answer - known[goal, t],
        episode.shown,
        instructions=episode.env.instructions,
        goal=episode.info["goal"],
        observation=episode.observation,
        admissible=episode.info["admissible"],
        step=t,
        max_steps=episode.env.max_steps,
    )


def fit_turn(
    prompts: ChatPrompts,
    size: Size,
    limit: int,
    free: int,
    shown: list[str],
    *,
    observation: str,
    **rest: Any,
) -> Fitted | None:
    """The user turn in ``limit`` tokens, if ``free`` has room for it.

    The first turn gives up demonstrations, as many as it must (``shown``, as in ``fitting_prompt``); then any
    turn over ``limit`` the middle of its observation. An observation is never cut for ``free``'s sake: a
    conversation that is nearly full ends, rather than going on half blind.
    """
    first = rest["step"] == 1

    def attempt(seen: str) -> str | None:
        text = prompts.act(observation=seen, demonstrations=shown[0] if first else "", **rest)
        return text if size(text) <= (min(limit, free) if first else limit) else None

    text = attempt(observation)
    while text is None and first and len(shown) > 1:
        del shown[0]
        text = attempt(observation)
    whole = text is not None
    if text is None and prompts.fmt.style == "full" and len(observation) > LEAST:
        text = largest_room(len(observation), lambda room: attempt(shorten(observation, room)))
    if text is None or size(text) > free:
        return None
    return Fitted(text, "" if whole else "observation")


def fitting_question(
    trajectory: Trajectory, prompts: ChatPrompts, size: Size, limit: int
) -> tuple[str, bool]:
    """The reflection's turn in ``limit`` tokens, and whether its observation was shortened or left out."""

    def ask(seen: str) -> str:
        return prompts.reflect(
            goal=trajectory.goal,
            observation=seen,
            length=len(trajectory.steps),
            won=trajectory.won,
            score=trajectory.score,
        )

    def attempt(seen: str) -> str | None:
        text = ask(seen)
        return text if size(text) <= limit else None

    last = trajectory.final_observation
    text = attempt(last)
    if text is not None:
        return text, False
    if prompts.fmt.style == "full" and len(last) > LEAST:
        text = largest_room(len(last), lambda room: attempt(shorten(last, room)))
    return text or ask(""), True


def chat_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What only conversations have; docs/metrics.md explains each."""
    played = [t for t in trajectories if t.steps]
    lengths = [sum(len(c.prompt_ids) + len(c.token_ids) for c in conversation_of(t)) for t in played]
    return {
        "rollout/context_full": sum(t.context_full for t in trajectories) / max(len(trajectories), 1),
        "rollout/conversation_tokens": float(np.mean(lengths)) if lengths else 0.0,
    }


def conversation_of(trajectory: Trajectory) -> list[Completion]:
    """The completions of an episode in order, its reflection's last."""
    reflection = trajectory.reflection
    return [step.completion for step in trajectory.steps] + (
        [reflection.completion] if reflection is not None else []
    )
