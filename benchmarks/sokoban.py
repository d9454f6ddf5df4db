"""Speed of the Sokoban environment: ``python benchmarks/sokoban.py`` (one core, no GPU)."""

from __future__ import annotations

import argparse
import itertools
import random
import time

from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.sokoban.board import Room, move
from repro_rl.envs.sokoban.generator import RoomSource
from repro_rl.envs.sokoban.settings import RoomSettings
from repro_rl.envs.sokoban.solver import Table


def forward_distance(room: Room) -> int | None:
    """Plain forward breadth-first search from one room: what a table lookup replaces."""
    seen, frontier, depth = {(room.player, room.boxes)}, [(room.player, room.boxes)], 0
    while frontier:
        if any(boxes == room.layout.targets for _, boxes in frontier):
            return depth
        following = []
        for (player, boxes), direction in itertools.product(frontier, range(4)):
            after = move(room.layout, player, boxes, direction)
            if after is not None and after not in seen:
                seen.add(after)
                following.append(after)
        frontier, depth = following, depth + 1
    return None


def stepping(envs: int, seconds: float, style: str) -> tuple[float, float]:
    """Random play in ``envs`` rooms at once: (environment steps a second, rounds over all rooms a second)."""
    rng = random.Random(0)
    live = [SokobanEnv(style=style) for _ in range(envs)]
    ids = live[0].panel("train").ids
    tasks = itertools.cycle(ids)
    actions = ["up", "down", "left", "right"]
    for env in live:
        env.reset(options={"task": next(tasks)})
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for env in live:
            _, _, terminated, truncated, _ = env.step(actions[rng.getrandbits(2)])
            if terminated or truncated:
                env.reset(options={"task": next(tasks)})
        steps += envs
    rate = steps / (time.perf_counter() - start)
    return rate, rate / envs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="measuring time of each part")
    arguments = parser.parse_args()

    for name, settings, count in (
        ("6x6, 1 box", RoomSettings(), 2000),
        ("6x6, 2 boxes", RoomSettings(boxes=2, solution=(6, 15)), 1000),
        ("8x8, 2 boxes", RoomSettings(rows=8, cols=8, boxes=2, solution=(8, 20)), 200),
        ("10x10, 3 boxes", RoomSettings(rows=10, cols=10, boxes=3, solution=(15, 40)), 50),
    ):
        start = time.perf_counter()
        source = RoomSource(settings)
        source.room("train", count - 1)
        print(f"generate {name:15} {count / (time.perf_counter() - start):8.0f} rooms/s")

    rooms = [RoomSource(RoomSettings(boxes=2, solution=(6, 15))).room("train", i) for i in range(50)]
    start = time.perf_counter()
    tables = sum(bool(Table(room.layout)(room.player, room.boxes)) for room in rooms) / (
        time.perf_counter() - start
    )
    start = time.perf_counter()
    single = sum(bool(forward_distance(room)) for room in rooms) / (time.perf_counter() - start)
    states = rooms[0].layout.size * (rooms[0].layout.size - 1) * (rooms[0].layout.size - 2) // 2
    print(
        f"solve 6x6, 2 boxes: all ~{states} states of a layout {tables:.0f}/s; one room by forward search "
        f"{single:.0f}/s"
    )

    for style in ("relative", "grid", "coordinates"):
        rate, rounds = stepping(512, arguments.seconds, style)
        print(f"step {style:12} {rate:8.0f} steps/s   512 rooms: {rounds:6.1f} rounds/s")


if __name__ == "__main__":
    main()
