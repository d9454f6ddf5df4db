"""Kills of a client that annotates: what is asked, and paid, a second time?

``python benchmarks/annotating_kills.py kills --trials 60``: demonstrations of Sokoban are annotated by a
chat-completions server on this machine, which counts every call. The client's process is killed (SIGKILL) at
a random moment; then the annotation is repeated. A call is in flight from when it is sent until its answer
is on disk, so at most ``api.concurrency`` calls are. Reported:

- calls asked twice (never more than those), how many of them the server had answered before the kill, and how
  long before
- stored answers asked again, and labels that differ from those of an undisturbed annotation (never any)

``python benchmarks/annotating_kills.py store`` measures what durability costs. Threads store answers, each in
a commit of its own, and as the store does it, all that wait in one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl import make
from repro_rl.config import RunConfig, load_config
from repro_rl.demos import collect_demos
from repro_rl.demos.annotation import AnnotationContext
from repro_rl.demos.http import annotate_by_api
from repro_rl.policy.http import Answer, AnswerStore
from repro_rl.policy.http.answers import FILE
from repro_rl.types import Trajectory

LATENCY = (0.005, 0.04)  # seconds that the server takes for an answer
UNREADABLE = 4  # every so many prompts are answered with nonsense first


# The server ---------------------------------------------------------------------------------------


class CountingServer(ThreadingHTTPServer):
    """Answers reflection prompts, and notes when each call began and when its answer was sent."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[dict[str, Any]] = []

    def handle_error(self, *_: Any) -> None:
        """Clients that are killed are the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingServer

    def do_GET(self) -> None:
        calls, self.server.calls = self.server.calls, []
        self._send(json.dumps(calls).encode())

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        data = self.rfile.read(size)
        if len(data) < size:  # killed while it asked: nothing to answer, or to pay
            self.close_connection = True
            return
        call: dict[str, Any] = {"content": data.decode(), "begun": time.monotonic(), "sent": None}
        self.server.calls.append(call)
        messages = json.loads(data)["messages"]
        time.sleep(random.Random(data).uniform(*LATENCY))
        text = _labels(messages)
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self._send(json.dumps({"choices": [choice], "usage": usage}).encode())
        call["sent"] = time.monotonic()

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def _labels(messages: Sequence[dict[str, str]]) -> str:
    """Values for a reflection prompt; nonsense at first for some prompts."""
    prompt = messages[0]["content"]
    if len(messages) == 1 and len(prompt) % UNREADABLE == 0:
        return "It went quite well."
    found = re.search(r"Now give the (\d+) values", prompt)
    total = int(found[1]) if found else 1
    lines = [f"step {t}: {90 * t // total}" for t in range(1, total + 1)]
    return "<progress>\n" + "\n".join(lines) + "\n</progress>"


@contextmanager
def counting_server() -> Iterator[str]:
    """The address of a CountingServer in a process of its own."""
    server = CountingServer()
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    port = server.server_port
    server.socket.close()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.join()


def take_calls(url: str) -> list[dict[str, Any]]:
    """The calls since the last time."""
    with urllib.request.urlopen(f"{url}/calls") as response:
        return list(json.load(response))


# The kills ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Trial:
    """One annotation that was killed, and repeated to its end."""

    first: int  # calls before the kill
    in_flight: int  # of them without an answer sent, at the kill
    repeated: int  # calls asked again
    ages: list[float]  # seconds between answer and kill, of repeated calls that had been answered
    stored_again: int  # calls asked again although their answer was stored; below 0: answers that are lost
    different: int  # episodes whose labels are not those of an undisturbed annotation


class Annotation:
    """Episodes, and how a server annotates them."""

    def __init__(self, url: str, episodes: int, concurrency: int):
        rooms = "env.settings={style: grid, train_rooms: 12, validation_rooms: 2, test_rooms: 2, "
        settings = [
            rooms + "solution: [2, 5], max_steps: 6}",
            f"demos={{expert: 1, winning: {episodes // 2}, failing: {episodes - episodes // 2 - 1}, "
            "labelled_mistakes: [0.5, 1.0], agent: planner, mistakes: [0.0], "
            "wandering: 0, annotator: linear}",
            f"api={{base_url: '{url}', model: judge, concurrency: {concurrency}}}",
        ]
        self.config = load_config("sokoban-tiny", settings)
        env = make("sokoban", **self.config.env.settings)
        self.instructions = env.instructions
        demos = collect_demos(env, env.panel("train").ids, self.config.demos, seed=0)
        self.episodes: list[Trajectory] = [*demos[0], *demos[1]]

    def run(self, cache: Path) -> list[tuple[int, ...] | None]:
        """The labels of all episodes."""
        section = self.config.api.model_copy(update={"cache": cache})
        config: RunConfig = self.config.model_copy(update={"api": section})
        context = AnnotationContext(self.instructions, np.random.default_rng(0), config)
        return [reflection.values for reflection in annotate_by_api(self.episodes, context)]


@dataclass(slots=True)
class Whole:
    """An annotation that nobody disturbed."""

    labels: list[tuple[int, ...] | None]
    calls: int


def stored(cache: Path) -> int:
    """Answers on disk."""
    if not (cache / FILE).exists():
        return 0
    with closing(sqlite3.connect(cache / FILE)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'answers'").fetchone():
            return 0  # killed before there was a table
        return int(db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])


def kill_once(annotation: Annotation, url: str, cache: Path, delay: float, whole: Whole) -> Trial | None:
    """Kill an annotation after ``delay`` seconds and repeat it; None when it had not begun, or was over."""
    process = multiprocessing.get_context("fork").Process(target=annotation.run, args=(cache,))
    process.start()
    time.sleep(delay)
    assert process.pid is not None
    killed = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode != -signal.SIGKILL:
        take_calls(url)
        return None
    kept = stored(cache)
    time.sleep(max(LATENCY) + 0.02)  # the server notices that its clients are gone
    first = take_calls(url)
    if not first:
        return None
    labels = annotation.run(cache)
    second = Counter(call["content"] for call in take_calls(url))
    assert max(second.values(), default=1) == 1
    again = [call for call in first if call["content"] in second]
    assert len({call["content"] for call in first}) == len(first), "a call was sent twice by one process"
    answered = [call for call in again if call["sent"] is not None and call["sent"] <= killed]
    return Trial(
        first=len(first),
        in_flight=sum(call["sent"] is None or call["sent"] > killed for call in first),
        repeated=len(again),
        ages=[killed - call["sent"] for call in answered],
        stored_again=kept + len(second) - whole.calls,
        different=sum(one != other for one, other in zip(labels, whole.labels, strict=True)),
    )


def kills(trials: int, episodes: int, concurrency: int, seed: int) -> list[Trial]:
    """``trials`` kills at moments drawn with ``seed``, each of an annotation with an empty cache."""
    rng, done = random.Random(seed), list[Trial]()
    with counting_server() as url, tempfile.TemporaryDirectory() as folder:
        annotation = Annotation(url, episodes, concurrency)
        begin = time.monotonic()
        labels = annotation.run(Path(folder) / "whole")
        lasts = time.monotonic() - begin
        whole = Whole(labels, len(take_calls(url)))
        number = 0
        while len(done) < trials:
            number += 1
            delay = rng.uniform(0, lasts)
            trial = kill_once(annotation, url, Path(folder) / str(number), delay, whole)
            if trial is not None:
                done.append(trial)
    return done


def report(done: Sequence[Trial], concurrency: int) -> str:
    ages = sorted(1000 * age for trial in done for age in trial.ages)
    return "\n".join(
        [
            f"{len(done)} kills, {sum(trial.first for trial in done)} calls before them",
            f"asked again after a kill: at most {max(trial.repeated for trial in done)} "
            f"(calls in flight: at most {concurrency}), {sum(trial.repeated for trial in done)} in all",
            f"of them answered before the kill: {len(ages)} in {sum(bool(trial.ages) for trial in done)} "
            f"kills, at most {max(ages, default=0):.1f} ms before it",
            f"stored answers asked again: {sum(trial.stored_again for trial in done)}",
            f"labels that differ: {sum(trial.different for trial in done)}",
        ]
    )


# The store ----------------------------------------------------------------------------------------


class _CommitEach:
    """Answers with a commit each, as the store did it before."""

    def __init__(self, store: AnswerStore):
        self.db, self.lock = store._db, threading.Lock()

    def put(self, key: str, model: str, answer: Answer) -> None:
        with self.lock:
            self.db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", (key, model, "{}", ""))


def store_cost(threads: int, answers: int) -> str:
    """Answers a second, and how long one waits, with a commit each and with shared commits."""
    lines = []
    for name in ("a commit each", "shared commits"):
        with tempfile.TemporaryDirectory() as folder:
            store = AnswerStore(Path(folder))
            target: Any = store if name == "shared commits" else _CommitEach(store)
            waits: list[float] = []

            def put(number: int, target: Any = target, waits: list[float] = waits) -> None:
                begin = time.perf_counter()
                target.put(f"{number:064x}", "m", Answer("x" * 300, "stop", 1, 1))
                waits.append(time.perf_counter() - begin)

            begin = time.perf_counter()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(put, range(answers)))
            seconds = time.perf_counter() - begin
            store.close()
        waits = sorted(1000 * wait for wait in waits)
        lines.append(
            f"{name}: {answers / seconds:.0f} answers/s; one waits {waits[len(waits) // 2]:.1f} ms (median), "
            f"{waits[int(0.99 * len(waits))]:.1f} ms (99 %), {waits[-1]:.1f} ms (longest)"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("what", choices=("kills", "store"))
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    if args.what == "store":
        print(store_cost(args.concurrency, args.answers))
    else:
        print(report(kills(args.trials, args.episodes, args.concurrency, args.seed), args.concurrency))


if __name__ == "__main__":
    main()
