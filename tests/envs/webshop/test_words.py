"""The ``words`` style."""

from __future__ import annotations

import random
from pathlib import Path

from support.webshop_shop import hand_made, record, shop


def test_observations_and_actions_use_the_vocabulary_only() -> None:
    env = shop(style="words")
    allowed = set(env.vocabulary())
    rng = random.Random(1)
    for task in env.panel("train").ids[:60]:
        observation, info = env.reset(options={"task": task})
        for _ in range(env.max_steps):
            assert set(observation.split()) <= allowed
            assert set(info["brief"].split()) <= allowed
            assert {word for action in info["admissible"] for word in action.split()} <= allowed
            observation, _, terminated, truncated, info = env.step(rng.choice(info["admissible"]))
            if terminated or truncated:
                break


def test_words_of_one_episode(tmp_path: Path) -> None:
    mugs = [
        record(
            "M000000001", name="Mugs, dishwasher safe", customization_options={"color": [{"value": "red"}]}
        ),
        record("M000000002", name="Cups", pricing="$900.00"),
    ]
    env = hand_made(tmp_path, mugs, style="words")
    task = next(task for task in env.panel("all") if task.startswith("M000000001"))
    assert env.reset(options={"task": task})[0] == "search-page a1 o1"
    observation, _, _, _, info = env.step("search[ $kind $a1 ]")
    assert observation == "results:1 r1:k2a1p1v0 r2:k0a0p0v0"
    assert info["brief"] == "results:1 k2 a1 p1"
    assert info["admissible"] == ["click[back]", "click[next]", "click[r1]", "click[r2]"]
    assert env.step("click[r2]")[0] == "item k0 a0/1 f0 d0 p0"
    assert env.step("click[features]")[0] == "features k0 a1/1 f1 d0 p0", "the bullets hold the attribute"
    env.step("click[prev]")
    assert env.step("click[prev]")[0] == "results:1 r1:k2a1p1v0 r2:k0a0p0v1"
    assert env.step("click[r1]")[0] == "item k2 a1/1 f0 d0 p1 g1:v1"
    assert env.step("click[g1v1]")[0] == "item k2 a1/1 f0 d0 p1 g1:ok"
    observation, reward, terminated, _, _ = env.step("click[buy]")
    assert (observation, reward, terminated) == ("bought:10", 10.0, True)
    env.reset(options={"task": task})
    for nonsense in ("click[r1]", "click[g1v1]", "search[ $a9 ]", "click[buy]"):
        assert not env.step(nonsense)[4]["valid"], nonsense
