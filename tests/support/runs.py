"""Synthetic Sokoban runs. ``python tests/support/runs.py FOLDER`` writes some, with their reports."""

import gzip
import json
import random
import sys
from collections import deque
from pathlib import Path

import yaml

from repro_rl.report import build_report
from repro_rl.study.progress import progress_quality
from repro_rl.study.stats import wilson

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \x1b[31m \u2028 \u202e ]]> '\" {{ 7*7 }} $\\frac{"

ROOMS = [
    "#######|#     #|# # O #|# X   #|#   P #|#     #|#######",
    "#######|#O    #|#   # #|# X   #|#  #P #|#     #|#######",
]

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class Room:
    """Enough of Sokoban to write believable records: one box, distance to the goal by search."""

    def __init__(self, text):
        self.rows = [list(row) for row in text.split("|")]
        spots = {
            mark: (r, c) for r, row in enumerate(self.rows) for c, mark in enumerate(row) if mark in "OXP"
        }
        self.goal, self.state = spots["O"], (spots["P"], spots["X"])

    def free(self, cell):
        return self.rows[cell[0]][cell[1]] != "#"

    def after(self, state, move):
        (r, c), box = state
        dr, dc = MOVES[move]
        player = (r + dr, c + dc)
        if player == box:
            box = (box[0] + dr, box[1] + dc)
        return (player, box) if self.free(player) and self.free(box) else state

    def plan(self, state):
        """(steps left, best move), or (None, None) from a dead end."""
        queue, first = deque([state]), {state: (0, None)}
        while queue:
            now = queue.popleft()
            if now[1] == self.goal:
                return first[now]
            for move in MOVES:
                then = self.after(now, move)
                if then not in first:
                    first[then] = (first[now][0] + 1, first[now][1] or move)
                    queue.append(then)
        return None, None

    def text(self, state):
        def mark(r, c):
            if (r, c) == state[0]:
                return "P"
            if (r, c) == state[1]:
                return "√" if state[1] == self.goal else "X"
            return "O" if (r, c) == self.goal else "#" if self.rows[r][c] == "#" else "_"

        return "\n".join(" ".join(mark(r, c) for c in range(7)) for r in range(7))


def trajectory(index, skill, rng, judge=True, iteration=0):
    room = Room(ROOMS[index % len(ROOMS)])
    state, best = room.state, room.plan(room.state)[0]
    steps, progress = [], 0
    for t in range(1, 16):
        before, (_, move) = state, room.plan(state)
        move = move if move and rng.random() < skill else rng.choice(list(MOVES))
        broken = rng.random() < 0.06
        state = state if broken else room.after(state, move)
        left, won = room.plan(state)[0], state[1] == room.goal
        truth = 0.0 if left is None else max(0.0, min(1.0, 1 - left / best))
        progress = min(100, progress + rng.choice([0, 10, 10, 20]))
        thought = f"<think>The box is near, I go {move}.</think>"
        text = f"{thought}<progress>{progress}</progress><action>{move}</action>"
        steps.append({
            "t": t, "observation": room.text(before), "brief": "", "prompt": "You solve Sokoban…",
            "text": text.replace("</action>", "") if broken else text, 
            "prompt_tokens": 40, "tokens": 20,
            "finished": not broken, "action": "" if broken else move, "online": None if broken else progress,
            "defects": ["action:unclosed"] if broken else [], "valid": not broken and state != before,
            "feedback": "Nothing happened." if state == before else "", "env_reward": 10.0 if won else 0.0,
            "truth": truth, "terms": {"env": 10.0 * won, "shaping": 0.1, "format": -0.1 * broken},
            "advantage": rng.gauss(0, 0.5), "entropy": 0.7,
        })  # fmt: skip
        if won:
            break
    values = [min(100, max(0, 10 * round(10 * step["truth"] + rng.gauss(0, 0.12) * 10))) for step in steps]
    values[-1] = 100 if won else min(90, values[-1])
    reflection = {
        "prompt": "Look back…", "text": "\n".join(map(str, values)), "prompt_tokens": 90, "tokens": 30,
        "values": values if judge else None, "defects": [] if judge else ["count"], "terms": {"format": 0.0},
        "advantage": 0.1,
    }  # fmt: skip
    return {
        "iteration": iteration, "task_id": f"boxoban/test/{index:04d}", "rollout": index % 4, "won": won,
        "goal": "Push every box onto a target.", "score": float(won), "truncated": not won, "error": None,
        "return": 10.0 * won, "final_observation": room.text(state), "steps": steps, "reflection": reflection,
    }  # fmt: skip


def write_trajectories(file, records):
    file.parent.mkdir(exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


def write_run(folder, *, method="repro", seed=0, iterations=40, top=0.65, episodes=40):
    """A run folder as the trainer writes it."""
    rng = random.Random(seed)
    (folder / "eval").mkdir(parents=True)
    label, digest = "sokoban/test[500]@3f9a1c0b7de2", "3f9a1c0b7de2" + "5a" * 26
    config = {"method": method, "seed": seed, "openai_api_key": "sk-live-1", "max_tokens": 96}
    config |= {"env": {"name": "sokoban"}, "policy": {"model": "tiny"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = {
        "versions": {"torch": "2.9.0"}, "method": method, "seeds": {"train": seed, "eval": 7},
        "panels": {"test": {"label": label, "digest": digest, "size": 500}}, "git": "d294c54",
        "started": "2026-07-01T09:12:44Z", "hardware": {"cpu": "8 cores", "gpu": None}, "parameters": 144_320,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows = []
    for i in range(1, iterations + 1):
        done = 1 - 2.7 ** (-i / 14)
        success = 0.14 + (top - 0.14) * done + rng.gauss(0, 0.02)
        row = {
            "iteration": i, "env_steps": 6100 * i, "seconds": 38.0 * i, "rollout/success": success,
            "rollout/length": 13.5 - 4 * done, "rollout/invalid_rate": 0.2 - 0.15 * done,
            "rollout/equal_groups": 0.3 + 0.3 * done, "reward/env": 10 * success,
            "rollout/format_rate": 0.98, "reward/shaping": 0.5 + 0.3 * done,
            "reward/alignment": -0.4 + 0.2 * done, "reward/format": -0.02, "reward/boundary": -0.05,
            "reward/invalid": -0.2 + 0.1 * done, "reflect/valid": 0.97, "reflect/final_won": 98.0,
            "reflect/final_lost": 40 + rng.gauss(0, 3), "update/loss": rng.gauss(0, 0.01),
            "update/policy_loss": rng.gauss(0, 0.01), "update/kl": 0.02 * i**0.5 + abs(rng.gauss(0, 0.01)),
            "update/clip_fraction": 0.12 + rng.gauss(0, 0.02), "update/entropy": 1.1 - 0.6 * done,
            "update/mismatch": 1e-4 * abs(rng.gauss(1, 0.3)), "update/lr": 5e-4 * min(1, i / 10),
            "update/grad_norm": 0.4 + abs(rng.gauss(0, 0.1)), "update/anchors": 120.0 + i,
        }  # fmt: skip
        if i % 10 == 0:
            share = max(0.0, min(1.0, success - 0.02))
            row |= {"validation/success": share, "validation/tasks": 200}
        rows.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    moments = (("warm-start", 0, 0.3, 0.14), ("best", iterations, 0.55, top - 0.04))
    for name, iteration, skill, success in moments:
        records = [trajectory(i, skill, rng, iteration=iteration) for i in range(episodes)]
        write_trajectories(folder / "trajectories" / f"eval-{name}.jsonl.gz", records)
        low, high = wilson(round(success * 500), 500)
        progress = {which: progress_quality(records, which) for which in ("online", "retrospective")}
        evaluation = {
            "checkpoint": f"checkpoints/{iteration}", "name": name, "iteration": iteration, "panel": label,
            "digest": digest, "split": "test", "tasks": 500, "rollouts_per_task": 1,
            "temperature": 0.4, "seed": 7, "episodes": 500, "success": success, "low": low, "high": high,
            "score": success, "length": 10.2, "invalid_rate": 0.06, "progress": progress, "seconds": 40.0,
        }  # fmt: skip
        (folder / "eval" / f"{name}.json").write_text(json.dumps(evaluation))
    for i in (1, iterations // 2, iterations):
        records = [trajectory(k, 0.3 + 0.25 * i / iterations, rng, k % 7 > 0, i) for k in range(episodes)]
        write_trajectories(folder / "trajectories" / f"iteration-{i:05d}.jsonl.gz", records)
    return folder


if __name__ == "__main__":
    base = Path(sys.argv[1])
    made = [
        write_run(base / "repro-0"),
        write_run(base / "repro-1", seed=1, top=0.7),
        write_run(base / "gigpo-0", method="gigpo", top=0.56),
    ]
    print(build_report(made[:1]), build_report(made, base / "compare.html"))
