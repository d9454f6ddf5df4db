"""Records and sets of episodes for the tests of the progress analysis."""

import random

import yaml

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.credit import CreditSettings, assign_credit
from repro_rl.rollout.record import trajectory_record, write_records
from repro_rl.study.recorded import EpisodeSet, RunSettings, clusters, recorded_episode
from repro_rl.study.resample import Resampler
from repro_rl.types import Completion, Group, Reflection, Status, Step, Trajectory

HOSTILE = "<img src=x onerror=alert(1)>|`*\u202e"


def record(won, online, truth, values=None, *, task="t", rollout=0, rewards=None, anchors=None, **more):
    size = len(online)
    rewards = rewards or [0.0] * (size - 1) + [10.0 * won]
    steps = [
        {"t": t + 1, "online": online[t], "truth": truth[t], "env_reward": rewards[t],
         "anchor": anchors[t] if anchors else f"s{t}", "terms": {}, "advantage": 0.0}
        for t in range(size)
    ]  # fmt: skip
    reflection = None if values is None else {"values": values}
    return {"task_id": task, "rollout": rollout, "iteration": 1, "won": won, "error": None, "steps": steps,
            "reflection": reflection, **more}  # fmt: skip


WON = record(True, [20, 10, 60, 100], [0.25, 0.5, 0.75, 1.0], [30, 40, 90, 100], task="a")

LOST = record(False, [50, 80, 90], [0.2, 0.4, 0.0], [10, 20, 0], task="b")

EVALUATION = EpisodeSet("run", "eval last", [], RunSettings("repro", "0"))


def episodes(*records, episode_set=EVALUATION):
    return [recorded_episode(one, episode_set) for one in records]


def sampler(found, resamples=100):
    return Resampler(clusters(found)[0], resamples=resamples)


def some_records(count=40, seed=0):
    rng = random.Random(seed)

    def value():
        return rng.choice([None, *range(0, 101, 10)])

    rows = []
    for number in range(count):
        size = rng.randrange(1, 7)
        rows.append(
            record(
                rng.random() < 0.5,
                [value() for _ in range(size)],
                [rng.choice([None, 0.0, 0.2, 0.5, 0.9]) for _ in range(size)],
                [rng.randrange(0, 101, 25) for _ in range(size)] if rng.random() < 0.8 else None,
                task=f"t{number % 25}",
            )
        )
    return rows


def trajectory(won, values, *, task, rollout, anchors):
    completion = Completion((), (), [], "", True)
    steps = [
        Step(t + 1, "", "", anchors[t], "", completion, "a", None, (), True,
             10.0 * (won and t == len(values) - 1), 0.5)
        for t in range(len(values))
    ]  # fmt: skip
    reflection = Reflection("", completion, tuple(values), ())
    status = Status.TERMINATED
    return Trajectory(task, rollout, HOSTILE, steps, won, float(won), status, reflection=reflection)


def trained(omega=1.0):
    """Two groups of one task in one iteration, credited as in training."""
    groups = [
        Group("p", [
            trajectory(True, [40, 100], task="p", rollout=0, anchors=["s", "x"]),
            trajectory(False, [70, 10], task="p", rollout=1, anchors=["s", "y"]),
        ]),
        Group("p", [
            trajectory(False, [30, 20], task="p", rollout=2, anchors=["s", "z"]),
            trajectory(False, [20, 30], task="p", rollout=3, anchors=["s", "z"]),
        ]),
    ]  # fmt: skip
    settings = CreditSettings(
        shaping="retrospective", beta=10.0, anchor="none", progress=False, gamma=0.5, omega=omega
    )
    assign_credit(groups, settings)
    return [trajectory_record(t, 3) for group in groups for t in group.trajectories]


def make_run(folder, *, method="repro"):
    rng = random.Random(5)
    rows = []
    for number in range(60):
        won = number % 3 == 0
        size = 4 + number % 3
        truth = [(t + 1) / size if won else 0.6 - 0.1 * t for t in range(size)]
        values = [min(100, max(0, round(100 * p + rng.uniform(-8, 8)))) for p in truth]
        online = [rng.randrange(0, 101, 10) for _ in truth]
        rows.append(record(won, online, truth, values if number % 10 else None, task=f"{HOSTILE}{number}"))
    folder.mkdir(parents=True)
    settings = {"method": {"name": method, "gamma": 0.5}, "train": {"group_size": 2}, "seed": 4}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    for name in ("last", "warm-start"):
        write_records(folder / "trajectories" / f"eval-{name}.jsonl.gz", rows)
    write_records(folder / "trajectories" / "iteration-00003.jsonl.gz", trained())
    return folder
