"""Many sessions of an OpenEnv server of ours: ``python benchmarks/openenv_sessions.py alfworld``.

It starts a server, opens all sessions at once, and plays random possible actions in all of them. It reports
steps a second and the memory of the server. Beside it, in the same run: a few servers with one session each,
which is one process a session. For ALFWorld with ``--data FOLDER``, also a few processes that each play a
game in the original engine, where it is installed. It is looked for in this Python, or in that of
``--original-python``. That needs nothing of ours, only ``pip install textworld==1.7.0 alfworld==0.4.2`` and a
C++ compiler, which builds a planner for some minutes. The original WebShop is not run: its code and models
are in no package index.

Seconds are wall time. Steps per processor second are counted by the server's own processor time. So they do
not depend on who else uses the machine, nor on what the client costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import websockets

PLACEHOLDER = "search[<your query>]"
ORIGINAL = """
import contextlib, io, random, sys, time
game, steps, rng = sys.argv[1], int(sys.argv[2]), random.Random(0)
import textworld
from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
infos = textworld.EnvInfos(won=True, admissible_commands=True, feedback=True)
with contextlib.redirect_stdout(io.StringIO()):  # its planner prints
    env = textworld.start(game, infos, wrappers=[AlfredDemangler(shuffle=False), AlfredInfos])
    state = env.reset()
print("ready", flush=True)
sys.stdin.readline()
wall, cpu = time.perf_counter(), time.process_time()
for _ in range(steps):
    state, _, done = env.step(rng.choice(state["admissible_commands"]))
    if done:
        state = env.reset()
print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)
sys.stdin.readline()
"""


def memory(pid: int) -> dict[str, float]:
    """Resident and proportional memory of a process, MB: PSS counts a page shared by n processes as 1/n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    return {name: int(values[name]) / 1024 for name in ("Rss", "Pss")}


def processor_seconds(pid: int) -> float:
    """Processor time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    """A server process of ours."""

    def __init__(self, env: str, settings: list[str], port: int, sessions: int):
        command = ["-m", "repro_rl.integrations.openenv", "serve", env, *settings]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port), "--sessions", str(sessions)]
        )
        self.url = f"127.0.0.1:{port}"

    def wait(self) -> None:
        """Until it answers."""
        answers = False
        while not answers and self.process.poll() is None:
            try:
                answers = httpx.get(f"http://{self.url}/health", trust_env=False, timeout=60).is_success
            except httpx.TransportError:
                time.sleep(0.2)
        if self.process.poll() is not None:
            raise SystemExit("the server did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure(name: str, servers: list[Server], each: int, steps: int) -> dict[str, float]:
    """Wait for the servers, play, stop them, and print the row."""
    try:
        for server in servers:
            server.wait()
        row = asyncio.run(play(servers, each, steps))
    finally:
        for server in servers:
            server.stop()
    report(name, row)
    return row


class Session:
    """A client's side of a session: plays possible actions, drawn by a seed."""

    def __init__(self, url: str, number: int):
        self.url, self.number, self.rng = url, number, random.Random(number)
        self.seen: dict[str, Any] = {}

    async def open(self) -> None:
        self.socket = await websockets.connect(
            f"ws://{self.url}/ws", proxy=None, open_timeout=600, ping_interval=None, compression=None
        )
        await self._reset()

    async def _reset(self) -> None:
        self.seen = await self._ask("reset", {"split": "train", "seed": self.number})

    async def play(self, steps: int) -> None:
        for _ in range(steps):
            if self.seen["done"]:
                await self._reset()
            observation = self.seen["observation"]
            action = self.rng.choice(observation["admissible"])
            if action == PLACEHOLDER:
                words = observation["goal"].split()
                action = f"search[{' '.join(self.rng.choices(words, k=4))}]"
            self.seen = await self._ask("step", {"command": action})

    async def _ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        await self.socket.send(json.dumps({"type": kind, "data": data}))
        answer = json.loads(await self.socket.recv())
        assert answer["type"] == "observation", answer
        return answer["data"]


async def play(servers: list[Server], each: int, steps: int) -> dict[str, float]:
    """``each`` sessions on every server play ``steps`` steps: rates and the servers' memory, in all."""
    pids = [server.process.pid for server in servers]
    idle = [memory(pid) for pid in pids]
    sessions = [Session(server.url, n) for server in servers for n in range(each)]
    begin = time.perf_counter()
    await asyncio.gather(*(session.open() for session in sessions))
    opened = time.perf_counter() - begin
    cpu, begin = sum(map(processor_seconds, pids)), time.perf_counter()
    await asyncio.gather(*(session.play(steps) for session in sessions))
    wall, cpu = time.perf_counter() - begin, sum(map(processor_seconds, pids)) - cpu
    busy = [memory(pid) for pid in pids]
    await asyncio.gather(*(session.socket.close() for session in sessions))
    total = len(sessions) * steps
    return {
        "sessions": len(sessions),
        "open_s": opened,
        "steps/s": total / wall,
        "steps/cpu_s": total / cpu,
        "rss": sum(m["Rss"] for m in busy),
        "pss": sum(m["Pss"] for m in busy),
        "pss_idle": sum(m["Pss"] for m in idle),
    }


def original(python: str, games: list[Path], steps: int) -> dict[str, float]:
    """The same for processes that each play one game in the original engine, all at once."""
    run = [python, "-c", ORIGINAL]
    children = [
        subprocess.Popen(
            [*run, str(game), str(steps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for game in games
    ]
    begin = time.perf_counter()
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
    opened = time.perf_counter() - begin
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    times = [tuple(map(float, child.stdout.readline().split())) for child in children if child.stdout]
    used = [memory(child.pid) for child in children]
    for child in children:
        child.communicate("\n")
    total = len(games) * steps
    return {
        "sessions": len(games),
        "open_s": opened,
        "steps/s": total / max(wall for wall, _ in times),
        "steps/cpu_s": total / sum(cpu for _, cpu in times),
        "rss": sum(m["Rss"] for m in used),
        "pss": sum(m["Pss"] for m in used),
    }


def report(name: str, row: dict[str, float]) -> None:
    each = row["pss"] / row["sessions"]
    print(
        f"{name}: {row['sessions']:.0f} sessions, opened in {row['open_s']:.1f} s; "
        f"{row['steps/s']:.0f} steps/s, "
        f"{row['steps/cpu_s']:.0f} a processor second; RSS {row['rss']:.0f} MB, PSS {row['pss']:.0f} MB, "
        f"{each:.2f} MB a session"
        + (f" ({row['pss_idle']:.0f} MB before the sessions)" if "pss_idle" in row else ""),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("env", choices=("alfworld", "webshop", "sokoban"))
    parser.add_argument("--data", help="folder with original games or products; generated ones without it")
    parser.add_argument("--sessions", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20, help="a session")
    parser.add_argument("--alone", type=int, default=3, help="servers of one session each")
    parser.add_argument("--original", type=int, default=3, help="processes of the original engine")
    parser.add_argument("--original-python", default=sys.executable, help="a Python that has textworld")
    parser.add_argument("--port", type=int, default=18700)
    arguments = parser.parse_args()
    settings = [f"data={arguments.data}"] if arguments.data else []
    many = Server(arguments.env, settings, arguments.port, arguments.sessions)
    together = measure("one process", [many], arguments.sessions, arguments.steps)
    alone = [Server(arguments.env, settings, arguments.port + 1 + n, 1) for n in range(arguments.alone)]
    measure("one process a session, ours", alone, 1, arguments.steps)
    games = sorted(Path(arguments.data or ".").rglob("game.tw-pddl"))[: arguments.original]
    if arguments.env != "alfworld" or not arguments.data or not arguments.original:
        print("original engine: not run (--help says what it needs)")
        return
    if subprocess.run(
        [arguments.original_python, "-c", "import alfworld, textworld"], check=False
    ).returncode:
        print("original engine: textworld and alfworld are not installed there; not run")
        return
    theirs = original(arguments.original_python, games, arguments.steps)
    report("one process a session, original", theirs)
    each = theirs["pss"] / theirs["sessions"]
    many_mb = each * arguments.sessions
    print(f"{arguments.sessions} such processes, extrapolated from {len(games)}: {many_mb:.0f} MB")
    rate = together["steps/cpu_s"] / theirs["steps/cpu_s"]
    share = each / (together["pss"] / together["sessions"])
    print(f"ours over the wire: {rate:.0f} times the steps a processor second, 1/{share:.0f} of the memory")


if __name__ == "__main__":
    main()
