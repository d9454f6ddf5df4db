"""Episodes as conversations: what the turns hold, and how an episode ends in a full conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.base import Policy
from repro_rl.policy.http import HttpPolicy
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.client import Failure, Question
from repro_rl.policy.token_policy import Conversations
from repro_rl.rollout import Actor, EnvPool, Judge, PlayOptions, RolloutRequest, run_episodes
from repro_rl.rollout.context import ChatContext, ContextLimits
from repro_rl.rollout.episode import completions_of
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.text.parse import parse_action
from repro_rl.types import Status, Trajectory
from support.conversations import COMPACT, LIMITS, SOKOBAN, tiny_policy
from support.scripted import ScriptedPolicy, ScriptedSession

FULL = PromptBuilder(TextFormat("full", progress=True, think="off"))
WIDE = ContextLimits(
    prompt=10**4, reflect_prompt=1, conversation=10**5, action=100, reflection=100, cache=10**6
)
ANSWER = "<progress>10</progress><action>push up</action>"


@pytest.fixture(scope="module")
def pool() -> EnvPool:
    return EnvPool("sokoban", SOKOBAN)


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "the model's own pass"])
def policy(tmp_path_factory, request, pool) -> TransformersPolicy:
    return tiny_policy(tmp_path_factory.mktemp("chat") / "tiny", pool, packed=request.param)


def play(
    pool: EnvPool,
    policy: Policy,
    limits: ContextLimits = LIMITS,
    prompts: PromptBuilder = COMPACT,
    *,
    tasks: int = 2,
    copies: int = 4,
    judge: bool = True,
    **options: Any,
) -> list[Trajectory]:
    requests = [
        RolloutRequest(task, k) for task in pool.first.panel("train").ids[:tasks] for k in range(copies)
    ]
    return ChatContext(pool, limits).play(
        requests,
        Actor(policy, prompts, SamplingSettings(limits.action)),
        Judge(SamplingSettings(limits.reflection)) if judge else None,
        PlayOptions("t", **options),
    )


# Budgets ------------------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_who_plays_beside(pool, policy):
    alone, together = play(pool, policy, max_live=1), play(pool, policy)
    two_at_once = play(pool, policy, replace(LIMITS, cache=1000))
    for one, two, three in zip(alone, together, two_at_once, strict=True):
        ids = [c.token_ids for c in completions_of(two)]
        assert len(ids) == two.length + 1
        assert [c.token_ids for c in completions_of(one)] == ids
        assert [c.token_ids for c in completions_of(three)] == ids
    assert len({c.token_ids for t in together for c in completions_of(t)}) > 20


def test_no_more_conversations_are_open_than_memory_holds(pool, policy, monkeypatch):
    """What is free is asked anew before every part, for conversations at their longest."""
    expected = play(pool, policy)
    asked, free = [], iter([2, 3, 100])

    def most_rows(self, longest):
        asked.append(longest)
        return next(free)

    monkeypatch.setattr(Conversations, "most_rows", most_rows)
    played = play(pool, policy)
    assert asked == [LIMITS.conversation] * 3
    assert [t.task_id for t in played] == [t.task_id for t in expected]
    for one, two in zip(played, expected, strict=True):
        assert [c.token_ids for c in completions_of(one)] == [c.token_ids for c in completions_of(two)]


def test_a_full_conversation_ends_as_truncated_with_its_reflection_in_the_budget(pool, policy):
    context = ChatContext(pool, LIMITS)
    whole = play(pool, policy)
    longest = max(sum(len(c.prompt_ids) + len(c.token_ids) for c in completions_of(t)) for t in whole)
    assert context.metrics(whole)["rollout/context_full"] == 0
    assert longest > 60
    for limit in (40, 60):
        cut = play(pool, policy, replace(LIMITS, conversation=limit))
        for one, two in zip(whole, cut, strict=True):
            parts = completions_of(two)
            used = sum(len(c.prompt_ids) for c in parts) + LIMITS.reflection
            used += sum(len(step.completion.token_ids) for step in two.steps)
            assert used <= limit  # even if the reflection had been as long as it may be
            assert two.reflection is not None
            assert parts[-1].token_ids
            full = two.status is Status.CONTEXT_FULL
            assert full is (two.length < one.length)
            if full:
                assert (two.truncated, two.won, two.error) == (True, False, None)
            # up to there, the same episode: the limit changes nothing before it ends
            assert [s.completion.token_ids for s in two.steps] == [
                s.completion.token_ids for s in one.steps[: two.length]
            ]
        share = context.metrics(cut)["rollout/context_full"]
        assert share == sum(t.status is Status.CONTEXT_FULL for t in cut) / len(cut)
        assert share > 0


def test_a_first_turn_that_does_not_fit_is_an_error_not_a_crash(pool, policy):
    for limits in (replace(LIMITS, conversation=25), replace(LIMITS, prompt=4)):
        for t in play(pool, policy, limits):
            assert t.status is Status.FAILED
            assert t.error is not None
            assert "first turn" in t.error
            assert (t.steps, t.reflection) == ([], None)


@pytest.mark.parametrize("judge", [True, False])
def test_ended_conversations_are_closed(pool, judge):
    """Nothing of them stays in the cache; with a judge they are open until they are judged."""
    sessions = []

    class Recording(ScriptedPolicy):
        def open_chat(self):
            sessions.append(ScriptedSession(self))
            return sessions[-1]

    trajectories = play(pool, Recording("p10 push up"), WIDE, copies=2, judge=judge, max_live=3)
    assert [t.reflection is not None for t in trajectories] == [judge] * 4
    assert [session.open_rows for session in sessions] == [{}, {}]


# Turns --------------------------------------------------------------------------------------------


def test_full_turns_by_hand(pool):
    """What each turn holds: rules and task once, then what is new, the outcome last."""
    policy = ScriptedPolicy(ANSWER)
    (t,) = play(pool, policy, WIDE, FULL, tasks=1, copies=1)
    env = pool.first
    first, *later, last = [turn for (turn,) in policy.calls]
    assert first.startswith(env.instructions)
    assert f"Your task: {t.goal}" in first
    assert first.endswith("Now answer for step 1.")
    assert len(later) == 5
    for number, turn in enumerate(later, 2):
        assert turn.startswith(f"Step {number}:\n{t.steps[number - 1].observation}\n\nPossible actions:\n- ")
        assert turn.strip() == turn
        assert env.instructions not in turn
    assert last.startswith(f"After step 6:\n{t.final_observation}\n")
    assert "The attempt is over: it failed.\n" in last
    assert last.endswith("Now give the 6 values, step 1 to step 6; all below 100.")
    assert [s.prompt for s in t.steps] == [first, *later]
    assert t.reflection is not None
    assert t.reflection.prompt == last


def test_demonstrations_stand_in_the_first_turn_as_far_as_they_fit(pool):
    texts = ["shown " * 300, "shown " * 20, ""]
    (t,) = play(
        pool, ScriptedPolicy(ANSWER), replace(WIDE, prompt=500), FULL, tasks=1, copies=1, judge=False,
        demonstrations=lambda *task: texts,
    )  # fmt: skip
    assert [step.prompt.count("shown") for step in t.steps] == [20, 0, 0, 0, 0, 0]
    assert t.reflection is None  # no judge was asked for
    assert len(texts) == 3  # the episode has a list of its own


def test_the_first_turn_of_a_conversation_is_a_steps_first_prompt(pool):
    """Both modes begin alike, so one warm start can serve both."""
    policy = ScriptedPolicy("p10 push up")
    (chat,) = play(pool, policy, WIDE, tasks=1, copies=1)
    request = RolloutRequest(chat.task_id, 0)
    (window,) = run_episodes(
        pool, [request], Actor(policy, COMPACT, SamplingSettings(3)), PlayOptions("t"), 2048
    )
    assert chat.steps[0].prompt == window.steps[0].prompt


# A model behind an API ----------------------------------------------------------------------------


class Client:
    """Stands for ChatClient: remembers the questions and numbers its answers."""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def ask(self, questions: list[Question]) -> list[Answer | Failure]:
        self.asked += questions
        return [Answer(f"answer {len(q.messages)}", "stop", 10, 2) for q in questions]


def test_an_api_plays_whole_episodes_as_messages(pool):
    client = Client()
    trajectories = play(pool, HttpPolicy(client), LIMITS, FULL, tasks=1, copies=2)  # type: ignore[arg-type]
    assert [t.length for t in trajectories] == [6, 6]
    assert [len(q.messages) for q in client.asked[::2]] == [1, 3, 5, 7, 9, 11, 13]
    assert all(t.reflection is not None and t.reflection.defects for t in trajectories)
    assert parse_action("answer 1", FULL.fmt).defects == trajectories[0].steps[0].defects
