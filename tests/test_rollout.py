"""Forward pass, reflection, records and counts, with a scripted policy in place of a model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from repro_rl import make
from repro_rl.config import RunConfig
from repro_rl.envs.base import ENVS, TextEnv, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.errors import DataError, TaskError
from repro_rl.policy import SamplingSettings
from repro_rl.rollout import (
    EnvPool,
    Job,
    read_trajectories,
    reflect,
    run_episodes,
    trajectory_record,
    write_trajectories,
)
from repro_rl.rollout.counts import group_metrics, rollout_metrics, success_rate
from repro_rl.text.parse import TextFormat
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.contexts import panel_jobs, play_jobs
from repro_rl.types import Completion, Group, Reflection, Step, Trajectory

SOKOBAN = {"train_rooms": 6, "validation_rooms": 2, "test_rooms": 2, "solution": (3, 6), "max_steps": 8}
SAMPLING = SamplingSettings(4)
COMPACT = PromptBuilder(TextFormat("compact", progress=True, think="off"))
FULL = PromptBuilder(TextFormat("full", progress=False, think="off"), history=2)


@dataclass
class Scripted:
    """A Policy: ``answer(prompt, key)`` is the text; a "…" at its end means that it was cut off."""

    answer: Callable[[str, int], str]
    calls: list[list[str]] = field(default_factory=list)

    def encode(self, prompt):
        return tuple(range(len(prompt.split())))

    def generate(self, prompts, keys, settings):
        assert len(prompts) == len(keys)
        self.calls.append(list(prompts))
        texts = [self.answer(prompt, int(key)) for prompt, key in zip(prompts, keys, strict=True)]
        return [
            Completion(
                self.encode(prompt),
                tuple(range(len(text.split()))),
                np.full(len(text.split()), -0.5, np.float32),
                text.rstrip("…"),
                not text.endswith("…"),
                entropy=0.25,
            )
            for prompt, text in zip(prompts, texts, strict=True)
        ]


def expert_plans(ids):
    """observation -> expert action, and the plan of every task."""
    env = make("sokoban", **SOKOBAN)
    moves, plans = {}, {}
    for task in ids:
        observation, _ = env.reset(options={"task": task})
        plans[task], over = [], False
        while not over:
            action = env.expert()
            moves[observation] = action
            plans[task].append(action)
            observation, _, over, _, _ = env.step(action)
    return moves, plans


@pytest.fixture
def pool():
    return EnvPool("sokoban", SOKOBAN)


def run(pool, jobs, policy, prompts=COMPACT, **more):
    more.setdefault("stream", "test")
    return run_episodes(pool, jobs, policy, prompts, SAMPLING, **more)


# The forward pass ---------------------------------------------------------------------------------


def test_known_actions_give_known_trajectories(pool):
    ids = pool.first.panel("train").ids
    moves, plans = expert_plans(ids)
    policy = Scripted(lambda prompt, key: f"p30 {moves[prompt.removesuffix(' progress')]}")
    done = []
    out = run(pool, [Job(task, k) for task in ids for k in range(2)], policy, on_step=done.append)
    assert [(t.task_id, t.rollout) for t in out] == [(task, k) for task in ids for k in range(2)]
    for trajectory in out:
        plan = plans[trajectory.task_id]
        assert [s.action for s in trajectory.steps] == plan
        assert [s.t for s in trajectory.steps] == list(range(1, len(plan) + 1))
        assert trajectory.won
        assert trajectory.score == 1
        assert not trajectory.truncated
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
    policy = Scripted(lambda prompt, key: f"p0 {moves[prompt.removesuffix(' progress')]}")
    (trajectory,) = run(pool, [Job(task, 0)], policy)
    for step, action in zip(trajectory.steps, plans[task], strict=True):
        assert step.anchor == info["anchor"]
        _, _, _, _, info = env.step(action)
        assert step.anchor != info["anchor"]
        assert step.brief == info["brief"]


def test_rubbish_is_recorded_and_never_raises(pool):
    tasks = pool.first.panel("train").ids[:3]
    texts = ["", "p200", "p1 p2 left…"]
    policy = Scripted(lambda prompt, key: texts[len(policy.calls) % 3])
    out = run(pool, [Job(task, 0) for task in tasks], policy)
    assert len(out) == 3
    for trajectory in out:
        assert len(trajectory.steps) == 8
        assert trajectory.truncated
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
        pool, [Job(pool.first.panel("train").ids[0], 0)], Scripted(lambda prompt, key: "p10 up…")
    )
    assert trajectory.steps[0].defects == ("cut_off",)
    assert trajectory.steps[0].action == "up"


class Fragile(TextEnv):
    """Counts to 4; the task "bad" breaks at its third step, "lost" at once, "weird" knows no progress."""

    name = "fragile"
    max_steps = 6
    instructions = "Count."

    def __init__(self, long: int = 0):
        self.long = long

    def panel(self, split):
        return TaskPanel("fragile", split, ("good", "bad", "lost", "weird"), ("g", "b", "l", "w"))

    def expert(self):
        return "go"

    def _info(self):
        won = self.count == 4
        progress = None if self.task == "weird" else self.count / 4
        return {
            "task_id": self.task,
            "goal": "Count to 4.",
            "admissible": ["go"],
            "anchor": (self.task, self.count),
            "valid": np.bool_(True),
            "won": np.bool_(won),
            "score": np.float32(self.count / 4),
            "progress": progress,
        }

    def reset(self, *, seed=None, options=None):
        self.task, self.count = options["task"], 0
        if self.task not in ("good", "bad", "lost", "weird"):
            raise TaskError(f"no task {self.task}")
        return f"at 0{' word' * self.long}", self._info()

    def step(self, action):
        if self.task == "lost" or (self.task == "bad" and self.count == 2):
            raise ConnectionError("server gone")
        self.count += 1
        won = self.count == 4
        return f"at {self.count}{' word' * self.long}", np.float32(won), won, False, self._info()


@pytest.fixture
def fragile():
    if "fragile" not in ENVS.names():
        register_env("fragile")(Fragile)
    return EnvPool("fragile")


def test_a_failing_environment_ends_only_its_own_episode(fragile):
    policy = Scripted(lambda prompt, key: "p50 go")
    done = []
    jobs = [Job(task, 0) for task in ("bad", "good", "lost", "weird")]
    bad, good, lost, weird = run(fragile, jobs, policy, on_step=done.append)
    assert bad.error == "ConnectionError at step 3: server gone"
    assert [len(t.steps) for t in (bad, good, lost, weird)] == [2, 4, 0, 4]
    assert good.error is None
    assert good.won
    assert not bad.won
    assert lost.error.startswith("ConnectionError at step 1")
    assert [s.truth for s in weird.steps] == [None] * 4
    assert [len(call) for call in policy.calls] == [4, 3, 3, 2]
    assert done == [1, 0, 1, 2]
    assert good.steps[0].brief == "at 1"  # no short form: the observation itself
    # the environments are fit for the next episode
    again = run(fragile, jobs[1:2], policy)
    assert again[0].won
    # and the odd number types can be written down
    line = json.dumps(trajectory_record(good, 1))
    assert json.loads(line)["won"] is True


def test_unknown_task_is_an_error(pool):
    with pytest.raises(TaskError, match="no/such/0"):
        run(pool, [Job("no/such/0", 0)], Scripted(lambda prompt, key: "p0 up"))


def test_long_prompts_first_lose_their_history():
    if "fragile" not in ENVS.names():
        register_env("fragile")(Fragile)
    pool = EnvPool("fragile", {"long": 40})
    policy = Scripted(lambda prompt, key: "<action>go</action>")

    def played(limit):
        policy.calls.clear()
        (trajectory,) = run(pool, [Job("good", 0)], policy, FULL, max_prompt_tokens=limit)
        return trajectory, [call[0].count(" word") // 40 for call in policy.calls]

    trajectory, shown = played(10_000)
    assert trajectory.won
    assert shown == [1, 2, 3, 3]  # the observation, and at most two from the history
    sizes = [len(call[0].split()) for call in policy.calls]
    trajectory, shown = played(sizes[2] - 1)
    assert trajectory.won
    assert shown == [1, 2, 2, 2]
    trajectory, shown = played(sizes[0] + 5)
    assert trajectory.won
    assert shown == [1, 1, 1, 1]
    trajectory, shown = played(sizes[0] - 1)  # now every observation loses its middle
    assert trajectory.won
    assert shown == [0, 0, 0, 0]
    assert [step.shortened for step in trajectory.steps] == ["observation"] * 4
    least = sizes[0] - 40
    trajectory, shown = played(least)
    assert shown == []
    assert trajectory.steps == []
    assert trajectory.error == f"prompt of step 1 is longer than {least} tokens"


def test_prompts_grown_too_long_end_the_episode():
    if "fragile" not in ENVS.names():
        register_env("fragile")(Fragile)
    pool = EnvPool("fragile")
    done = []

    class Growing(Scripted):
        def encode(self, prompt):
            return tuple(range(100 if "at 2" in prompt else 5))

    out = run(
        pool,
        [Job("good", 0), Job("weird", 0)],
        Growing(lambda prompt, key: "p1 go"),
        max_prompt_tokens=50,
        on_step=done.append,
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

    run(pool, [Job(task, 0), Job(task, 1)], Scripted(note))
    first = list(seen)
    assert len(set(first)) == 16  # two rollouts of eight steps
    seen.clear()
    run(pool, [Job(task, 1)], Scripted(note))
    assert seen == first[1::2]  # the other rollout does not matter
    seen.clear()
    run(pool, [Job(task, 1)], Scripted(note), stream="another")
    assert not set(seen) & set(first)


# Playing a panel ----------------------------------------------------------------------------------


def test_panel_result_does_not_depend_on_live(pool):
    panel = pool.first.panel("train")
    words = ("up", "down", "left", "right")

    def play(live):
        done = []
        policy = Scripted(lambda prompt, key: f"p{key % 101} {words[key % 4]}")
        out = play_jobs(
            RunConfig(), pool, panel_jobs(panel, 3), policy, COMPACT, SAMPLING, None,
            stream=("panel", 5), live=live, on_step=done.append,
        )  # fmt: skip
        assert sum(done) == len(out)
        assert max(map(len, policy.calls)) == min(live, len(panel) * 3)
        return [trajectory_record(t, 0) for t in out]

    whole = play(512)
    assert [r["task_id"] for r in whole] == [task for task in panel.ids for _ in range(3)]
    assert whole == play(4) == play(1)
    assert len({tuple(s["action"] for s in r["steps"]) for r in whole}) > 10


def test_panel_with_a_real_model_does_not_depend_on_live(warm):
    from repro_rl.config import load_config
    from repro_rl.train.build import build_pool, build_prompts, load_policy

    config = load_config(None, warm.settings)
    policy, pool = load_policy(config, warm.model), build_pool(config)
    panel = pool.first.panel("validation")

    def play(live):
        settings = SamplingSettings(3, temperature=1.0)
        jobs, prompts = panel_jobs(panel, 2), build_prompts(config)
        out = play_jobs(config, pool, jobs, policy, prompts, settings, None, stream=("panel", 5), live=live)
        return [[(s.prompt, s.completion.token_ids) for s in t.steps] for t in out]

    assert play(64) == play(3)


# Reflection ---------------------------------------------------------------------------------------


def two_episodes(pool):
    moves, _ = expert_plans(pool.first.panel("train").ids)
    ids = pool.first.panel("train").ids[:2]
    won = run(pool, [Job(ids[0], 0)], Scripted(lambda p, key: f"p10 {moves[p.removesuffix(' progress')]}"))
    lost = run(pool, [Job(ids[1], 0)], Scripted(lambda p, key: "p10 "))
    assert won[0].won
    assert not lost[0].won
    return won[0], lost[0]


def values_text(count, last=90):
    return " ".join(f"t{t} p{last if t == count else 10}" for t in range(1, count + 1))


def test_reflect_parses_and_shows_the_outcome(pool):
    won, lost = two_episodes(pool)
    policy = Scripted(lambda prompt, key: values_text(prompt.count(" t")))
    reflect([won, lost], policy, COMPACT, SAMPLING, instructions="", stream="s")
    for trajectory in (won, lost):
        count = len(trajectory.steps)
        assert trajectory.reflection.values == (10,) * (count - 1) + (90,)
        assert trajectory.reflection.defects == ()
    assert won.reflection.prompt.startswith(f"reflect won {won.steps[0].observation} ")
    assert lost.reflection.prompt.startswith("reflect lost ")
    assert lost.reflection.prompt.endswith("judge")
    assert lost.reflection.prompt.count(" none ") == 8
    words = won.reflection.prompt.split()
    assert [w for w in words if w in ("up", "down", "left", "right")] == [s.action for s in won.steps]
    assert len(policy.calls) == 1


def test_reflect_on_rubbish_cut_off_and_too_long(pool):
    won, lost = two_episodes(pool)
    empty = Trajectory("x", 0, "", [], False, 0.0, False, error="lost")
    reflect([won, lost, empty], Scripted(lambda p, k: "what?"), COMPACT, SAMPLING, instructions="", stream=0)
    assert won.reflection.values is None
    assert set(won.reflection.defects) == {"text_outside", "no_values"}
    assert empty.reflection is None
    cut = Scripted(lambda prompt, key: values_text(prompt.count(" t")) + "…")
    reflect([won], cut, COMPACT, SAMPLING, instructions="", stream=0)
    assert won.reflection.values is None
    assert won.reflection.defects == ("cut_off",)
    policy = Scripted(lambda prompt, key: values_text(prompt.count(" t")))
    limit = len(policy.encode(won.reflection.prompt))
    assert limit < len(policy.encode(lost.reflection.prompt))
    reflect([won, lost], policy, COMPACT, SAMPLING, instructions="", stream=0, max_prompt_tokens=limit)
    assert won.reflection.values is not None
    assert lost.reflection.values is None
    assert lost.reflection.defects == ("prompt_too_long",)
    assert lost.reflection.completion.token_ids == ()
    assert [len(call) for call in policy.calls] == [1]
    reflect([lost], policy, COMPACT, SAMPLING, instructions="", stream=0, max_prompt_tokens=3)
    assert len(policy.calls) == 1  # nothing to ask


# Records ------------------------------------------------------------------------------------------


def test_records_round_trip_and_equal_bytes(pool, tmp_path):
    won, lost = two_episodes(pool)
    policy = Scripted(lambda prompt, key: values_text(prompt.count(" t")))
    reflect([won], policy, COMPACT, SAMPLING, instructions="", stream=0)
    won.steps[0].terms, won.steps[0].advantage = {"env": 0.0, "shaping": 0.1}, -0.5
    write_trajectories(tmp_path / "a.jsonl.gz", [won, lost], 7)
    write_trajectories(tmp_path / "sub" / "b.jsonl.gz", [won, lost], 7)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "sub" / "b.jsonl.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl.gz", "sub"]
    first, second = read_trajectories(tmp_path / "a.jsonl.gz")
    assert first == trajectory_record(won, 7)
    assert second == trajectory_record(lost, 7)
    assert first["iteration"] == 7
    assert first["return"] == 10
    assert first["reflection"]["values"] == list(won.reflection.values)
    assert second["reflection"] is None
    assert first["steps"][0]["terms"] == {"env": 0.0, "shaping": 0.1}
    assert first["steps"][0]["advantage"] == -0.5
    assert first["steps"][0]["tokens"] == 2
    assert second["steps"][0]["defects"] == ["no_action"]
    assert second["steps"][0]["online"] == 10


def test_broken_records_name_file_and_line(tmp_path, pool):
    path = tmp_path / "broken.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": \n'))
    lines = read_trajectories(path)
    assert next(lines) == {"a": 1}
    with pytest.raises(DataError, match=r"broken\.jsonl\.gz, record line 2: not JSON"):
        next(lines)
    whole = gzip.compress("".join(f'{{"a": {i}, "b": "{i * 7919}"}}\n' for i in range(3000)).encode())
    damaged = bytearray(whole)
    damaged[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    for data in (b"plain text", whole[: len(whole) // 2], bytes(damaged), gzip.compress(b'{"a": "\xff"}\n')):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"broken\.jsonl\.gz"):
            list(read_trajectories(path))
    with pytest.raises(DataError, match=r"missing\.jsonl\.gz"):
        list(read_trajectories(tmp_path / "missing.jsonl.gz"))
    path.write_bytes(gzip.compress(b""))
    assert list(read_trajectories(path)) == []


# Counts -------------------------------------------------------------------------------------------


def step(t, *, valid=True, defects=(), finished=True, tokens=2, online=None, reward=0.0, terms=None):
    completion = Completion((0,), (0,) * tokens, np.zeros(tokens, np.float32), "", finished, entropy=t / 10)
    return Step(
        t, "o", "b", "a", "p", completion, "x", online, defects, valid, reward, None, terms=terms or {}
    )


def test_rollout_metrics_by_hand():
    one = Trajectory("a", 0, "", [step(1, online=40, reward=1), step(2, reward=10)], True, 1.0, False)
    two = Trajectory("a", 1, "", [], False, 0.5, True)
    two.steps.append(step(1, valid=False, defects=("x",), tokens=5, online=20))
    two.steps.append(step(2, finished=False, defects=("cut_off",), tokens=3))
    none = Trajectory("b", 0, "", [], False, 0.0, False, error="boom")
    metrics = rollout_metrics([one, two, none])
    assert metrics == pytest.approx(
        {
            "rollout/success": 1 / 3,
            "rollout/score": 0.5,
            "rollout/return": 11 / 3,
            "rollout/length": 4 / 3,
            "rollout/invalid_rate": 1 / 4,
            "rollout/format_rate": 2 / 4,
            "rollout/cut_off": 1 / 4,
            "rollout/tokens": 12 / 4,
            "rollout/entropy": 0.6 / 4,
            "rollout/errors": 1.0,
            "rollout/truncated_prompts": 0.0,
            "rollout/truncated_observations": 0.0,
            "rollout/online": 30.0,
        }
    )
    assert success_rate([]) == 0
    assert rollout_metrics([])["rollout/length"] == 0
    assert "rollout/online" not in rollout_metrics([none])


def test_group_metrics_by_hand():
    def episode(won, values=None, tokens=4, **terms):
        trajectory = Trajectory("a", 0, "", [step(1, terms=terms), step(2, terms=terms)], won, 0.0, False)
        if tokens:
            completion = Completion((0,), (0,) * tokens, np.zeros(tokens, np.float32), "", True)
            trajectory.reflection = Reflection("", completion, values, () if values else ("no_values",))
        return trajectory

    groups = [
        Group("a", [episode(True, (10, 100), env=5.0), episode(False, (10, 40), env=0.0, shaping=0.2)]),
        Group("b", [episode(False, (0, 20), 6), episode(False, None, 2)]),
        Group("c", [episode(True, (0, 80)), episode(True, tokens=0)]),
    ]
    metrics = group_metrics(groups)
    assert metrics == pytest.approx(
        {
            "rollout/equal_groups": 2 / 3,
            "rollout/failed_groups": 1 / 3,
            "reward/env": 10 / 6,
            "reward/shaping": 0.4 / 6,
            "reflect/valid": 4 / 5,
            "reflect/tokens": 20 / 5,
            "reflect/truncated_prompts": 0.0,
            "reflect/final_won": 90.0,
            "reflect/final_lost": 30.0,
        }
    )
