"""The scripted expert and the ground-truth progress."""

from __future__ import annotations

import random

from support.webshop_shop import shop


def test_the_expert_wins_in_words_and_text_and_progress_never_falls() -> None:
    for style, least in (("text", 1.0), ("words", 0.95)):
        env = shop(style=style)
        ids = env.panel("train").ids[:150]
        won = 0
        for task in ids:
            _, info = env.reset(options={"task": task})
            last = info["progress"]
            while (action := env.expert()) is not None:
                _, _, terminated, truncated, info = env.step(action)
                assert info["valid"], action
                assert info["progress"] >= last
                last = info["progress"]
                if terminated or truncated:
                    break
            won += info["won"]
        assert won >= least * len(ids), style


def test_the_expert_wins_from_any_state() -> None:
    env = shop(max_steps=60)
    rng = random.Random(0)
    for task in env.panel("train").ids[:30]:
        _, info = env.reset(options={"task": task})
        for _ in range(12):
            open_to = [a for a in info["admissible"] if a != "click[buy now]"]
            info = env.step(rng.choice(open_to).replace("<your query>", env.goal(task).query))[4]
        while not info["won"]:
            action = env.expert()
            assert action is not None
            info = env.step(action)[4]
