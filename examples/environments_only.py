"""The three environments alone: no model, no torch. Every expert plays one task of a fixed panel.

python examples/environments_only.py
"""

from __future__ import annotations

import sys

import repro_rl


def main() -> None:
    for name in ("sokoban", "alfworld", "webshop"):
        env = repro_rl.make(name)
        panel = env.panel("test")
        observation, info = env.reset(options={"task": panel.ids[0]})
        print(f"\n{panel.label()}: {len(panel)} tasks\n{info['goal']}\n{observation[:300]}")
        ended = False
        while not ended and (action := env.expert()) is not None:
            observation, reward, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            progress = "unknown" if info["progress"] is None else f"{info['progress']:.0%}"
            print(f"> {action}   reward {reward:g}, true progress {progress}")
        print("won" if info["won"] else "not won")
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main()
