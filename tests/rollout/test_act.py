"""Acting with scripted policies: known actions, unreadable answers, failing environments, long prompts."""

from __future__ import annotations

import json

import pytest

from repro_rl import make
from repro_rl.errors import TaskError
from repro_rl.rollout import EnvPool, RolloutRequest, trajectory_record
from repro_rl.types import Status
from support.episodes import FULL, SOKOBAN, expert_plans, expert_policy, fragile_env, run
from support.scripted import ScriptedPolicy, WordText


@pytest.fixture
def fragile():
    with fragile_env():
        yield EnvPool("fragile")


def test_known_actions_give_known_trajectories(pool):
    ids = pool.first.panel("train").ids
    moves, plans = expert_plans(ids)
    policy = expert_policy(moves, 30)
    done = []
    out = run(pool, [RolloutRequest(task, k) for task in ids for k in range(2)], policy, on_done=done.append)
    assert [(t.task_id, t.rollout) for t in out] == [(task, k) for task in ids for k in range(2)]
    for trajectory in out:
        plan = plans[trajectory.task_id]
        assert [s.action for s in trajectory.steps] == plan
        assert [s.t for s in trajectory.steps] == list(range(1, len(plan) + 1))
        assert trajectory.won
        assert trajectory.score == 1
        assert trajectory.status is Status.TERMINATED
        assert trajectory.error is None
        assert trajectory.env_return == 10
        assert [s.env_reward for s in trajectory.steps] == [0] * (len(plan) - 1) + [10]
        truth = [1 - (len(plan) - t) / len(plan) for t in range(1, len(plan) + 1)]
        assert [s.truth for s in trajectory.steps] == pytest.approx(truth)
        assert [s.online for s in trajectory.steps] == [30] * len(plan)
        assert all(s.valid and s.defects == () for s in trajectory.steps)
        for before, after in zip(trajectory.steps[:-1], trajectory.steps[1:], strict=True):
            assert before.feedback == after.observation
            assert before.anchor != after.anchor
        assert trajectory.steps[-1].feedback == trajectory.final_observation
        assert trajectory.steps[0].prompt == f"{trajectory.steps[0].observation} progress"
    # finished episodes leave the batch
    lengths = [len(plans[task]) for task in ids for _ in range(2)]
    assert [len(call) for call in policy.calls] == [
        sum(length >= t for length in lengths) for t in range(1, max(lengths) + 1)
    ]
    assert done == [sum(length == t for length in lengths) for t in range(1, max(lengths) + 1)]
    assert sum(done) == len(out)


def test_anchor_is_the_state_before_acting(pool):
    task = pool.first.panel("train").ids[0]
    moves, plans = expert_plans([task])
    env = make("sokoban", **SOKOBAN)
    _, info = env.reset(options={"task": task})
    policy = expert_policy(moves, 0)
    (trajectory,) = run(pool, [RolloutRequest(task, 0)], policy)
    for step, action in zip(trajectory.steps, plans[task], strict=True):
        assert step.anchor == info["anchor"]
        _, _, _, _, info = env.step(action)
        assert step.anchor != info["anchor"]
        assert step.brief == info["brief"]


def test_rubbish_is_recorded_and_never_raises(pool):
    tasks = pool.first.panel("train").ids[:3]
    texts = ["", "p200", "p1 p2 left…"]
    policy = ScriptedPolicy(lambda prompt, key: texts[len(policy.calls) % 3])
    out = run(pool, [RolloutRequest(task, 0) for task in tasks], policy)
    assert len(out) == 3
    for trajectory in out:
        assert len(trajectory.steps) == 8
        assert trajectory.status is Status.TRUNCATED
        assert not trajectory.won
        assert trajectory.error is None
        assert trajectory.steps[0].defects == ("progress_out_of_range", "no_action")
        assert trajectory.steps[1].defects[-1] == "cut_off"
        assert "duplicate_progress" in trajectory.steps[1].defects
        assert trajectory.steps[2].defects == ("no_progress", "no_action")
        for step in trajectory.steps:
            assert step.online is None
            if step.action == "":
                assert not step.valid
                assert step.feedback == step.observation  # nothing happened


def test_cut_off_alone_is_a_defect(pool):
    (trajectory,) = run(
        pool, [RolloutRequest(pool.first.panel("train").ids[0], 0)], ScriptedPolicy("p10 up…")
    )
    assert trajectory.steps[0].defects == ("cut_off",)
    assert trajectory.steps[0].action == "up"


def test_a_failing_environment_ends_only_its_own_episode(fragile):
    policy = ScriptedPolicy("p50 go")
    done = []
    requests = [RolloutRequest(task, 0) for task in ("bad", "good", "lost", "weird")]
    bad, good, lost, weird = run(fragile, requests, policy, on_done=done.append)
    assert bad.error == "ConnectionError at step 3: server gone"
    assert [len(t.steps) for t in (bad, good, lost, weird)] == [2, 4, 0, 4]
    assert [t.status for t in (bad, good, lost, weird)] == [
        *(Status.FAILED, Status.TERMINATED, Status.FAILED, Status.TERMINATED),
    ]
    assert good.error is None
    assert good.won
    assert not bad.won
    assert lost.error.startswith("ConnectionError at step 1")
    assert [s.truth for s in weird.steps] == [None] * 4
    assert [len(call) for call in policy.calls] == [4, 3, 3, 2]
    assert done == [1, 0, 1, 2]
    assert good.steps[0].brief == "at 1"  # no short form: the observation itself
    # the environments are fit for the next episode
    again = run(fragile, requests[1:2], policy)
    assert again[0].won
    # and the odd number types can be written down
    line = json.dumps(trajectory_record(good, 1))
    assert json.loads(line)["won"] is True


def test_unknown_task_is_an_error(pool):
    with pytest.raises(TaskError, match="no/such/0"):
        run(pool, [RolloutRequest("no/such/0", 0)], ScriptedPolicy("p0 up"))


def test_long_prompts_first_lose_their_history(fragile):
    pool = EnvPool("fragile", {"long": 40})
    policy = ScriptedPolicy("<action>go</action>")

    def played(limit):
        policy.calls.clear()
        (trajectory,) = run(pool, [RolloutRequest("good", 0)], policy, FULL, max_prompt_tokens=limit)
        return trajectory, [call[0].count(" word") // 40 for call in policy.calls]

    trajectory, observations = played(10_000)
    assert trajectory.won
    assert observations == [1, 2, 3, 3]  # the observation, and at most two from the history
    sizes = [len(call[0].split()) for call in policy.calls]
    trajectory, observations = played(sizes[2] - 1)
    assert trajectory.won
    assert observations == [1, 2, 2, 2]
    trajectory, observations = played(sizes[0] + 5)
    assert trajectory.won
    assert observations == [1, 1, 1, 1]
    trajectory, observations = played(sizes[0] - 1)  # now every observation loses its middle
    assert trajectory.won
    assert observations == [0, 0, 0, 0]
    assert [step.shortened for step in trajectory.steps] == ["observation"] * 4
    least = sizes[0] - 40
    trajectory, observations = played(least)
    assert observations == []
    assert trajectory.steps == []
    assert trajectory.error == f"prompt of step 1 is longer than {least} tokens"


def test_prompts_grown_too_long_end_the_episode(fragile):
    done = []

    class GrowingText(WordText):
        def encode(self, prompt):
            return tuple(range(100 if "at 2" in prompt else 5))

    out = run(
        fragile,
        [RolloutRequest("good", 0), RolloutRequest("weird", 0)],
        ScriptedPolicy("p1 go", GrowingText()),
        max_prompt_tokens=50,
        on_done=done.append,
    )
    assert [t.error for t in out] == ["prompt of step 3 is longer than 50 tokens"] * 2
    assert [len(t.steps) for t in out] == [2, 2]
    assert sum(done) == 2  # the progress bar hears of every episode


def test_keys_name_stream_task_rollout_and_step(pool):
    seen = []
    task = pool.first.panel("train").ids[0]

    def note(prompt, key):
        seen.append(key)
        return "p0 left"

    run(pool, [RolloutRequest(task, 0), RolloutRequest(task, 1)], ScriptedPolicy(note))
    first = list(seen)
    assert len(set(first)) == 16  # two rollouts of eight steps
    seen.clear()
    run(pool, [RolloutRequest(task, 1)], ScriptedPolicy(note))
    assert seen == first[1::2]  # the other rollout does not matter
    seen.clear()
    run(pool, [RolloutRequest(task, 1)], ScriptedPolicy(note), stream="another")
    assert not set(seen) & set(first)


def test_an_environment_that_cannot_begin_fails_its_episode(fragile):
    requests = [RolloutRequest("unreachable", 0), RolloutRequest("good", 0)]
    done, ended = [], []
    policy = ScriptedPolicy("p1 go")
    failed, good = run(fragile, requests, policy, on_done=done.append, on_episode=ended.append)
    assert (failed.status, failed.error) == (Status.FAILED, "ConnectionError at step 0: no server")
    assert (failed.steps, failed.won, good.won) == ([], False, True)
    assert sum(done) == 2  # a progress bar counts both
    assert [episode.task_id for episode in ended] == ["unreachable", "good"]
    (alone,) = run(fragile, requests[:1], policy, on_done=done.append, on_episode=ended.append)
    assert (sum(done), ended[-1]) == (3, alone)


def test_no_completion_fails_the_episode_and_adds_no_step(fragile):
    class Refusing(ScriptedPolicy):
        def generate(self, prompts, keys, settings, forms=None):
            completions = super().generate(prompts, keys, settings)
            if len(self.calls) == 2:
                completions[0].error = "budget is used up"
            return completions

    failed, good = run(fragile, [RolloutRequest("good", 0), RolloutRequest("good", 1)], Refusing("p1 go"))
    assert failed.error == "no completion at step 2: budget is used up"
    assert (failed.failed, failed.length, good.won) == (True, 1, True)


def test_demonstrations_that_do_not_fit_are_not_tried_again(fragile):
    texts = ["demo " * 200, "demo " * 20, ""]
    asked = []

    def demonstrations(*task):
        asked.append(task)
        return texts

    policy = ScriptedPolicy("<action>go</action>")
    (trajectory,) = run(
        fragile, [RolloutRequest("good", 0)], policy, FULL,
        max_prompt_tokens=160, demonstrations=demonstrations,
    )  # fmt: skip
    assert trajectory.won
    assert asked == [("good", "Count to 4.", "at 0")]
    assert [step.prompt.count("demo ") for step in trajectory.steps] == [20] * 4
    assert len(texts) == 3  # the episode has a list of its own
