"""Playing groups and panels: order, names of rollouts, and independence of how many play at once."""

from __future__ import annotations

import pytest

from repro_rl.errors import ConfigError
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny
from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest, play, trajectory_record
from repro_rl.rollout.context import ContextLimits, WindowContext
from repro_rl.run.validation import panel_requests
from support.episodes import COMPACT, SAMPLING, sokoban_pool, values_text
from support.scripted import ScriptedPolicy

LIMITS = ContextLimits(
    prompt=2048, reflect_prompt=4096, conversation=4096, action=4, reflection=40, cache=10**6
)
WORDS = ("up", "down", "left", "right")


@pytest.fixture
def context():
    return WindowContext(sokoban_pool(), LIMITS)


def wander(prompt: str, key: int) -> str:
    """An action that depends on the random stream, or a reflection."""
    return values_text(prompt.count(" t")) if "judge" in prompt else f"p{key % 101} {WORDS[key % 4]}"


def records(groups):
    return [trajectory_record(t, 0) for group in groups for t in group.trajectories]


def test_the_result_does_not_depend_on_how_many_play_at_once(context):
    panel = context.pool.first.panel("train")

    def run(live):
        done = []
        policy = ScriptedPolicy(wander)
        options = PlayOptions(("panel", 5), max_live=live, on_done=done.append)
        played = context.play(panel_requests(panel.ids, 3), Actor(policy, COMPACT, SAMPLING), None, options)
        assert sum(done) == len(played)
        assert max(map(len, policy.calls)) == min(live, len(panel) * 3)
        return [trajectory_record(t, 0) for t in played]

    whole = run(512)
    assert [r["task_id"] for r in whole] == [task for task in panel.ids for _ in range(3)]
    assert whole == run(4) == run(1)
    assert len({tuple(s["action"] for s in r["steps"]) for r in whole}) > 10


def test_nor_does_that_of_a_real_model(context, tmp_path):
    from repro_rl.config import PolicySection, TinySection

    env = context.pool.first
    words = {*env.vocabulary(), *COMPACT.words(env.max_steps)}
    size = TinySection(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, positions=256)
    folder = build_tiny(tmp_path / "tiny", words, size, seed=3)
    actor = Actor(TransformersPolicy.load(folder, PolicySection(device="cpu")), COMPACT, SamplingSettings(3))
    requests = panel_requests(env.panel("train").ids, 2)

    def run(live):
        played = context.play(requests, actor, None, PlayOptions(("panel", 5), max_live=live))
        return [[(s.prompt, s.completion.token_ids) for s in t.steps] for t in played]

    whole = run(64)
    assert whole == run(3)
    assert len({ids for episode in whole for _, ids in episode}) > 10


def test_play_makes_a_group_of_each_task(context):
    tasks = context.pool.first.panel("train").ids[:2]
    tasks = [tasks[0], tasks[1], tasks[0]]
    policy = ScriptedPolicy(wander)
    actor = Actor(policy, COMPACT, SAMPLING)
    groups = play(context, tasks, actor, group_size=2, stream="s")
    assert [g.task_id for g in groups] == tasks
    assert [[t.task_id for t in g.trajectories] for g in groups] == [[task] * 2 for task in tasks]
    # numbered through, so that a task that comes twice is played with other random numbers
    assert [[t.rollout for t in g.trajectories] for g in groups] == [[0, 1], [2, 3], [4, 5]]
    assert all(t.reflection is None for g in groups for t in g.trajectories)
    assert records(groups) == records(play(context, tasks, actor, group_size=2, stream="s"))
    assert records(groups) != records(play(context, tasks, actor, group_size=2, stream="another"))
    whole = [RolloutRequest(task, i) for i, task in enumerate(task for task in tasks for _ in range(2))]
    assert records(groups) == [
        trajectory_record(t, 0) for t in context.play(whole, actor, None, PlayOptions("s"))
    ]


def test_one_text_is_no_list_of_tasks(context):
    with pytest.raises(ConfigError, match=r"tasks is the text 'a/test/1'; give a list"):
        play(context, "a/test/1", None)


def test_play_reflects_with_a_judge(context):
    (task,) = context.pool.first.panel("train").ids[:1]
    policy, other = ScriptedPolicy(wander), ScriptedPolicy(wander)
    actor = Actor(policy, COMPACT, SAMPLING)
    (alone,) = play(context, [task], actor, group_size=2)
    acted = len(policy.calls)
    (judged,) = play(context, [task], actor, Judge(SamplingSettings(40)), group_size=2)
    assert len(policy.calls) == 2 * acted + 1  # the policy that acted reflects
    (by_other,) = play(context, [task], actor, Judge(SamplingSettings(40), other), group_size=2)
    assert len(policy.calls) == 3 * acted + 1
    assert [len(call) for call in other.calls] == [2]
    for one, two, three in zip(alone.trajectories, judged.trajectories, by_other.trajectories, strict=True):
        assert [s.action for s in one.steps] == [s.action for s in two.steps]
        assert two.reflection is not None
        assert two.reflection.values == (10,) * (two.length - 1) + (90,)
        assert three.reflection is not None
        assert three.reflection.values == two.reflection.values
