"""Recorded episodes for the viewer's tests, and a client of its server."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import threading
from pathlib import Path
from urllib.parse import urlencode

from repro_rl.report.load import normalised
from repro_rl.report.view import make_server
from repro_rl.report.view.episodes import summarise
from repro_rl.report.view.library import Library
from repro_rl.report.view.query import Search, parse_query, select_episodes

IT = "iteration-00001"

HOSTILE = (
    "</script></pre><script>document.documentElement.dataset.ran='1'</script>"
    "<img src=x onerror=\"document.documentElement.dataset.ran='2'\"><svg onload=alert(1)> "
    "\x1b[31m\x00\u202e\u2028 {{7*7}} ' \" & javascript:alert(1)"
)


def record(task="lab/test/0", *, won=False, online=(10, 20), values=(0, 50), truth=(0.25, 0.5), **more):
    """An episode of as many steps as ``online`` has values."""
    steps = [
        {
            "t": t, "observation": f"room {t}", "prompt": "the secret prompt", "text": f"p{reported} go",
            "action": "go", "online": reported, "truth": true, "valid": True, "defects": [], "finished": True,
            "feedback": "a door", "env_reward": 0.0, "terms": {"env": 0.0}, "advantage": 0.5, "tokens": 3,
        }
        for t, (reported, true) in enumerate(zip(online, truth, strict=True), 1)
    ]  # fmt: skip
    reflection = {"prompt": "look back", "text": "t1 p0", "values": values, "defects": [], "terms": {}}
    return {
        "iteration": 1, "task_id": task, "rollout": 0, "goal": "Leave.", "won": won, "score": float(won),
        "truncated": not won, "error": None, "return": 0.0, "final_observation": "the end", "steps": steps,
        "reflection": reflection,
    } | more  # fmt: skip


def write_records(file: Path, records, *, ascii_only=False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in records)
    return file


def trajectory_file(run: Path, name: str = "iteration-00001") -> Path:
    return run / "trajectories" / f"{name}.jsonl.gz"


def summary(value):
    return summarise(normalised(json.loads(json.dumps(value))), 1, 0, 1)


def loaded(*runs: Path) -> Library:
    library = Library(runs)
    library.refresh(60)
    return library


def listed(library: Library, **fields: str) -> list[str]:
    """The keys that pass, without the run."""
    entries, left = select_episodes(library, parse_query(fields), Search(), 60)
    assert left == 0
    return [file.key(episode).partition("/")[2] for file, episode in entries]


def make_view_run(folder: Path) -> Path:
    """Five training episodes of two tasks, and an evaluation of two."""
    broken = record("lab/test/1", values=None)
    broken["reflection"]["defects"] = ["wrong_count"]
    broken["steps"][0] |= {"valid": False, "defects": ["cut_off"], "action": "", "observation": 'say "ÄPFEL"'}
    write_records(
        trajectory_file(folder),
        [
            record("lab/test/1", online=(10, 90), values=(0, 20)),  # lost, claimed 90, gap 70
            record("lab/test/1", online=(10, 70), values=(0, 85), score=0.5),  # lost, in retrospect 85
            record("lab/test/1", won=True, online=(10, 95), values=(50, 100), truth=(0.5, 1.0)),
            broken,
            record("lab/train/2", error="the game fell over", online=(5, 5)),
        ],
    )
    write_records(
        trajectory_file(folder, "eval-best"), [record("lab/test/1", won=True), record(online=(None, None))]
    )
    (folder / "config.yaml").write_text("method: repro\nseed: 3\n")
    (folder / "private.txt").write_text("nobody asked")
    return folder


class Client:
    def __init__(self, port: int):
        self.port = port

    def ask(self, path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer, text

    def json(self, path, **fields):
        answer, text = self.ask(f"{path}?{urlencode(fields)}")
        return answer.status, json.loads(text)


@contextlib.contextmanager
def serving(*runs):
    server = make_server(runs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
