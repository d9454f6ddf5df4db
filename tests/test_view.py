"""The viewer: what its index keeps of an episode, its filters, its server, and its page in a real browser."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro_rl.errors import ConfigError, DataError
from repro_rl.report.pick import clean
from repro_rl.report.view import make_server
from repro_rl.report.view.episodes import last, normal, summarise, task_type, unpack
from repro_rl.report.view.library import Library
from repro_rl.report.view.pages import episode_page, list_page
from repro_rl.report.view.query import Query, Search, choose, parse_query

IT = "iteration-00001"
HOSTILE = (
    "</script></pre><script>document.documentElement.dataset.ran='1'</script>"
    "<img src=x onerror=\"document.documentElement.dataset.ran='2'\"><svg onload=alert(1)> "
    "\x1b[31m\x00\u202e\u2028 {{7*7}} ' \" & javascript:alert(1)"
)


def record(task="lab/test/0", *, won=False, online=(10, 20), judged=(0, 50), truth=(0.25, 0.5), **more):
    """An episode of as many steps as ``online`` has values."""
    steps = [
        {
            "t": t, "observation": f"room {t}", "prompt": "the secret prompt", "text": f"p{said} go",
            "action": "go", "online": said, "truth": true, "valid": True, "defects": [], "finished": True,
            "feedback": "a door", "env_reward": 0.0, "terms": {"env": 0.0}, "advantage": 0.5, "tokens": 3,
        }
        for t, (said, true) in enumerate(zip(online, truth, strict=True), 1)
    ]  # fmt: skip
    reflection = {"prompt": "look back", "text": "t1 p0", "values": judged, "defects": [], "terms": {}}
    return {
        "iteration": 1, "task_id": task, "rollout": 0, "goal": "Leave.", "won": won, "score": float(won),
        "truncated": not won, "error": None, "return": 0.0, "final_observation": "the end", "steps": steps,
        "reflection": reflection,
    } | more  # fmt: skip


def write(file: Path, records, *, ascii_only=False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(value, ensure_ascii=ascii_only) + "\n" for value in records)
    return file


def place(run: Path, name: str = "iteration-00001") -> Path:
    return run / "trajectories" / f"{name}.jsonl.gz"


def summary(value):
    return summarise(normal(json.loads(json.dumps(value))), 1, 0, 1)


def loaded(*runs: Path) -> Library:
    library = Library(runs)
    library.refresh(60)
    return library


def listed(library: Library, **fields: str) -> list[str]:
    """The keys that pass, without the run."""
    found, left = choose(library, parse_query(fields), Search(), 60)
    assert left == 0
    return [source.key(episode).partition("/")[2] for source, episode in found]


# What is kept of an episode ------------------------------------------------------------------------


def test_summary_by_hand():
    value = record(online=(10, None, 95), judged=(30, 50, 60), truth=(0.25, 0.5, 0.2))
    value["steps"][1] |= {"valid": False, "defects": ["no_progress", "cut_off"]}
    value["reflection"]["defects"] = ["odd"]
    episode = summary(value)
    assert episode.believed == (95, 3)
    assert episode.gap == (35, 3)  # 20, -, 35
    assert episode.online_error == (75, 3)  # 15, -, 75
    assert episode.retrospective_error == (40, 3)  # 5, 0, 40
    assert unpack(episode.online) == [10, None, 95]
    assert last(episode.truth) == 20
    assert (episode.outcome, episode.judged, episode.invalid, episode.malformed) == ("lost", "valid", 1, 1)
    assert episode.defects == ("no_progress", "cut_off", "reflection: odd")
    assert summary(record(judged=(0, 100), truth=(0, 1), online=(100, 0))).gap == (100, 1)  # the earliest


def test_a_reflection_is_valid_broken_or_absent():
    assert summary(record(judged=(1,))).judged == "broken"  # one value for two steps
    assert summary(record(judged=None)).judged == "broken"
    assert summary(record(reflection=None)).judged == "none"
    assert summary(record(error="the server is gone", won=True)).outcome == "error"


def test_task_types():
    game = "train/pick_two_obj_and_place-Book-None-Desk-312/trial_T2019"
    assert task_type({}, game) == "pick_two_obj_and_place"
    assert task_type({}, "B07XYZ1234/human/3") == "human"
    assert task_type({}, "gen-6x6-seed0/train/2185") == "gen-6x6-seed0/train"
    assert task_type({}, "17") == ""
    assert task_type({"task_type": "cool"}, game) == "cool"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
STEP = st.fixed_dictionaries({}, optional=dict.fromkeys(record()["steps"][0], JSON)) | JSON
ANY = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(record(), JSON) | {"steps": st.lists(STEP, max_size=3) | JSON}
)


@settings(max_examples=60, deadline=None)
@given(value=ANY | JSON)
def test_any_json_line_is_listed_and_shown_or_left_out_with_a_note(tmp_path_factory, value):
    run = tmp_path_factory.mktemp("any")
    write(place(run), [value, record()])
    library = loaded(run)
    count = len(library.sources[0].episodes)
    assert count == 2 - len(library.sources[0].notes)
    for episode in library.sources[0].episodes:
        episode_page(library, library.sources[0].key(episode))
    assert len(list_page(library, Search(), Query(text="room"), 0, "", 60)["rows"]) >= 1


# The library ---------------------------------------------------------------------------------------


def test_records_are_read_from_the_place_they_stand_at(tmp_path):
    write(place(tmp_path), [record(goal=f"Goal {n} – é") for n in range(40)])
    library = loaded(tmp_path)
    assert library.read("0/iteration-00001/33")[2]["goal"] == "Goal 32 – é"
    for key in (f"0/{IT}/41", f"1/{IT}/1", f"0/{IT}/-1", "0/../config/1", "x", ""):
        with pytest.raises(DataError, match="no such episode"):
            library.read(key)


def test_new_changed_and_removed_files_are_noticed(tmp_path):
    first = write(place(tmp_path), [record()])
    library = loaded(tmp_path)
    write(place(tmp_path, "iteration-00010"), [record()])
    write(place(tmp_path, "iteration-00009"), [record()])
    write(place(tmp_path, "eval-best"), [record(), record()])
    library.refresh(60)
    assert [source.name for source in library.sources] == [
        "iteration 1", "iteration 9", "iteration 10", "eval best",
    ]  # fmt: skip
    write(first, [record(goal="another"), record(goal="and one more")])
    assert library.read("0/iteration-00001/1")[2]["goal"] == "another"  # even before the next look
    version = library.version
    first.unlink()
    library.refresh(60)
    assert len(library.sources) == 3
    assert library.version > version


def test_a_short_look_indexes_one_file_at_a_time(tmp_path):
    for number in range(3):
        write(place(tmp_path, f"iteration-{number:05d}"), [record()])
    library = Library([tmp_path])
    seen = []
    for _ in range(3):
        library.refresh(0)
        seen.append(library.waiting)
    assert seen == [2, 1, 0]


def test_a_half_written_file_gives_what_is_before_the_break_and_a_note(tmp_path):
    lines = [record(goal=os.urandom(2000).hex()) for _ in range(50)]
    file = write(place(tmp_path), lines)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    library = loaded(tmp_path)
    count = len(library.sources[0].episodes)
    assert 5 < count < 45
    assert f"broken after line {count}" in library.notes[0]
    assert str(file) in library.notes[0]
    assert library.read(f"0/iteration-00001/{count}")[2]["goal"] == lines[count - 1]["goal"]
    file.write_bytes(b"")
    write(place(tmp_path, "iteration-00002"), [record()])
    library.refresh(60)
    assert sum(len(source.episodes) for source in library.sources) == 1
    place(tmp_path, "iteration-00003").write_bytes(b"no gzip at all")
    library.refresh(60)
    assert any("iteration-00003" in note for note in library.notes)


def test_lines_that_are_no_records_are_left_out_by_number(tmp_path):
    with gzip.open(write(place(tmp_path), []), "wt") as out:
        out.write("nope\n\n[1]\n" + json.dumps(record()) + "\n" + "[" * 100_000 + "\n")
    library = loaded(tmp_path)
    assert [episode.line for episode in library.sources[0].episodes] == [4]
    assert [note.split(": ")[-1][:6] for note in library.notes if "line" in note] == [
        "line 1", "line 3", "line 5",
    ]  # fmt: skip
    assert library.read("0/iteration-00001/4")[2]["goal"] == "Leave."


def test_links_out_of_the_run_and_what_is_no_file_are_not_opened(tmp_path):
    outside = write(tmp_path / "outside.jsonl.gz", [record()])
    run = tmp_path / "run"
    write(place(run), [record()])
    place(run, "iteration-00002").symlink_to(outside)
    os.mkfifo(place(run, "iteration-00003"))
    library = loaded(run)
    assert [source.name for source in library.sources] == ["iteration 1"]
    assert any("iteration-00002" in note and "leads out" in note for note in library.notes)


def test_what_is_no_run_is_refused_with_a_hint(tmp_path):
    with pytest.raises(DataError, match="No such run folder"):
        Library([tmp_path / "nowhere"])
    write(place(tmp_path / "demo" / "train"), [record()])
    with pytest.raises(DataError, match=r"did you mean .*demo/train"):
        Library([tmp_path / "demo"])
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.yaml").write_text("seed: 1\n")
    assert loaded(tmp_path / "young").sources == []  # training has begun, nothing is recorded yet
    write(tmp_path / "demos" / "expert.jsonl.gz", [record()])
    assert [source.name for source in loaded(tmp_path / "demos").sources] == ["expert"]


# Filters, orders, search ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Five training episodes of two tasks, and an evaluation of two."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    broken = record("lab/test/1", judged=None)
    broken["reflection"]["defects"] = ["wrong_count"]
    broken["steps"][0] |= {"valid": False, "defects": ["cut_off"], "action": "", "observation": 'say "ÄPFEL"'}
    write(
        place(folder),
        [
            record("lab/test/1", online=(10, 90), judged=(0, 20)),  # lost, said 90, gap 70
            record("lab/test/1", online=(10, 70), judged=(0, 85), score=0.5),  # lost, judged 85
            record("lab/test/1", won=True, online=(10, 95), judged=(50, 100), truth=(0.5, 1.0)),
            broken,
            record("lab/train/2", error="the game fell over", online=(5, 5)),
        ],
    )
    write(place(folder, "eval-best"), [record("lab/test/1", won=True), record(online=(None, None))])
    (folder / "config.yaml").write_text("method: repro\nseed: 3\n")
    (folder / "private.txt").write_text("nobody asked")
    return folder


def test_filters(run):
    library = loaded(run)
    assert listed(library, outcome="lost", believed="80") == [f"{IT}/1", f"{IT}/2"]
    assert listed(library, outcome="won") == [f"{IT}/3", "eval-best/1"]
    assert listed(library, outcome="error") == [f"{IT}/5"]
    assert len(listed(library, outcome="truncated")) == 5
    assert summary(record(context_full=True)).context_full
    assert not summary(record()).context_full
    assert listed(library, trouble="reflection") == [f"{IT}/4"]
    assert listed(library, trouble="invalid") == listed(library, trouble="form") == [f"{IT}/4"]
    assert listed(library, trouble="defect:cut_off") == [f"{IT}/4"]
    assert listed(library, trouble="defect:reflection: wrong_count") == [f"{IT}/4"]
    assert listed(library, gap="70") == [f"{IT}/1"]
    assert listed(library, source="eval best") == ["eval-best/1", "eval-best/2"]
    assert listed(library, kind="lab/train", run="0") == [f"{IT}/5"]
    assert listed(library, kind="") == []
    assert listed(library, task="lab/test/0") == ["eval-best/2"]
    assert listed(library, run="1") == []


def test_orders_put_what_has_no_value_last_both_ways(run):
    library = loaded(run)
    down, up = (listed(library, sort="believed", down=down) for down in ("1", ""))
    assert down[:3] == [f"{IT}/3", f"{IT}/1", f"{IT}/2"]
    assert down[-1] == f"{IT}/4"
    assert up[0] == f"{IT}/4"
    online = [listed(library, sort="online", down=way, source="eval best") for way in ("1", "")]
    assert [order[-1] for order in online] == ["eval-best/2", "eval-best/2"]
    assert listed(library, sort="file", down="1")[0] == "eval-best/2"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outcome": "wno"}, "did you mean 'won'"),
        ({"sort": "__class__"}, "Unknown sort"),
        ({"trouble": "x"}, "Unknown trouble"),
        ({"believed": "80%"}, "whole number"),
        ({"run": "-1"}, "whole number"),
        ({"gap": "9" * 30}, "whole number"),
        ({"colour": "red"}, "Unknown filter"),
    ],
)
def test_a_wrong_filter_is_named(fields, said):
    with pytest.raises(ConfigError, match=said):
        parse_query(fields)


def test_search_in_any_case_but_not_in_prompts(run):
    library = loaded(run)
    assert listed(library, text="FELL over") == [f"{IT}/5"]
    assert listed(library, text='"äpfel"') == [f"{IT}/4"]
    assert len(listed(library, text="  a Door ")) == 7
    assert listed(library, text="secret prompt") == []
    assert listed(library, text="observation") == []  # the name of a field
    assert listed(library, text="the end", outcome="won") == [f"{IT}/3", "eval-best/1"]


def test_search_finds_escaped_text_and_follows_changed_files(tmp_path):
    write(place(tmp_path), [record(goal="caf\u00e9\n\\ x")], ascii_only=True)
    library, search = loaded(tmp_path), Search()
    for text, count in (("Café", 1), ("é\n\\", 1), ("tea", 0)):
        assert len(choose(library, Query(text=text), search, 60)[0]) == count
    write(place(tmp_path), [record(goal="tea"), record(goal="tea")])
    library.refresh(60)
    assert len(choose(library, Query(text="tea"), search, 60)[0]) == 2


def test_a_search_goes_on_where_it_was(tmp_path):
    for number in range(3):
        write(place(tmp_path, f"iteration-{number:05d}"), [record()])
    library, search = loaded(tmp_path), Search()
    assert [choose(library, Query(text="door"), search, 0)[1] for _ in range(3)] == [2, 1, 0]
    found, left = choose(library, Query(text="door"), search, 60)
    assert (len(found), left) == (3, 0)


def test_pages_and_the_page_around_an_episode(tmp_path):
    write(place(tmp_path), [record(f"lab/test/{n}") for n in range(250)])
    library, search = Library([tmp_path]), Search()
    page = list_page(library, search, Query(), 100, "", 60)
    assert (page["count"], page["offset"], len(page["rows"])) == (250, 100, 100)
    page = list_page(library, search, Query(), 0, "0/iteration-00001/250", 60)
    assert (page["offset"], page["rows"][-1]["task"]) == (200, "lab/test/249")
    assert list_page(library, search, Query(), 900, "gone", 60)["offset"] == 0


def test_an_episode_comes_with_the_other_rollouts_of_its_task(run):
    page = episode_page(loaded(run), f"0/{IT}/1")
    assert [row["key"] for row in page["group"]] == [f"0/{IT}/{line}" for line in (1, 2, 3, 4)]
    assert [row["key"] for row in page["elsewhere"]] == ["0/eval-best/1"]
    assert page["steps"][0]["prompt"] == "the secret prompt"
    assert page["reflection"]["prompt"] == "look back"


# The server ----------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def client(run):
    with serving(run) as server:
        yield Client(server.server_address[1])


def test_server_listens_on_this_machine_only(run):
    with serving(run) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match="cannot be used"):
            make_server([run], server.server_address[1])


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.org:80", "", "0.0.0.0", "localhost.:1", None]
)
def test_a_foreign_host_is_refused(client, host):
    for path in ("/", "/api/list", "/view.js", "/nowhere"):
        assert client.ask(path, Host=host)[0].status == 403


def test_this_machine_may_ask_under_any_port(client):
    for host in ("localhost", "LOCALHOST:9", f"127.0.0.1:{client.port}", "127.0.0.1"):
        assert client.ask("/api/list", Host=host)[0].status == 200


def test_other_sites_may_link_to_the_page_and_nothing_else(client):
    assert client.ask("/", Sec_Fetch_Site="cross-site")[0].status == 200
    for site in ("cross-site", "same-site"):
        assert client.ask("/api/list", Sec_Fetch_Site=site)[0].status == 403
        assert client.ask("/view.js", Sec_Fetch_Site=site)[0].status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_only_get(client, method):
    assert client.ask("/api/list", method)[0].status in (405, 501)


@pytest.mark.parametrize(
    "path",
    [
        "/private.txt", "/../private.txt", "/%2e%2e/private.txt", "/..%2fprivate.txt", "//private.txt",
        "/trajectories/iteration-00001.jsonl.gz", "/view.js/../report.html.jinja", "/etc/passwd",
        "/server.py",
        "/api/episode?key=0/../private/1", "/api/episode?key=0//etc/passwd/1", "/api/episode?key=%00",
        "/api/episode", "/api", "http://[", "/\\..\\private.txt",
    ],
)  # fmt: skip
def test_nothing_but_the_page_and_the_episodes_is_served(client, path):
    answer, text = client.ask(path, Host="localhost")
    assert answer.status in (400, 404)
    assert "nobody asked" not in text
    assert "root:" not in text


def test_every_answer_carries_the_policy(client):
    for path in ("/", "/view.js", "/api/list", "/nowhere", "/api/list?sort=x"):
        answer, _ = client.ask(path)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Access-Control-Allow-Origin"] is None


def test_list_and_episode_over_http(client):
    status, page = client.json("/api/list", outcome="lost", believed="80", sort="believed", down="1")
    assert (status, page["count"], page["total"]) == (200, 2, 7)
    assert page["rows"][0]["believed"] == {"points": 90, "step": 2}
    status, choices = client.json("/api/choices")
    assert choices["runs"][0]["label"] == "repro · seed 3"
    assert ["eval best", 2] in choices["sources"]
    assert ["reflection: wrong_count", 1] in choices["defects"]
    status, episode = client.json("/api/episode", key=page["rows"][0]["key"])
    assert (status, episode["online"], len(episode["steps"])) == (200, [10, 90], 2)
    for fields, said in (({"sort": "x"}, "Unknown sort"), ({"offset": "a"}, "whole number")):
        status, answer = client.json("/api/list", **fields)
        assert status == 400
        assert said in answer["error"]


def test_answers_hold_no_markup_and_no_control_character(tmp_path):
    hostile = record(HOSTILE, goal=HOSTILE, error=HOSTILE, score=float("nan"))
    hostile["steps"][0] |= {"text": HOSTILE, "defects": [HOSTILE], "terms": {HOSTILE: float("inf")}}
    write(place(tmp_path), [hostile])
    with serving(tmp_path) as server:
        client = Client(server.server_address[1])
        for path in ("/api/list", "/api/choices", "/api/episode?key=0/iteration-00001/1"):
            answer, text = client.ask(path)
            assert answer.status == 200
            assert text.isascii()
            assert text.isprintable()
            assert not set(text) & set("<>&")
            json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_the_command_serves_and_ends_with_ctrl_c(run):
    # A suite that runs in the background of a shell hands down an ignored SIGINT.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = heard + "from repro_rl.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "view", str(run), "--no-open"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = process.stdout.readline()
        port = int(line.split("http://127.0.0.1:")[1].split("/")[0])
        assert Client(port).json("/api/list")[1]["count"] == 7
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Ended." in rest
    assert "Traceback" not in rest


# The page in a browser -----------------------------------------------------------------------------


class Browser:
    """Headless Chromium, driven over its debugging pipe (JSON messages, each ended by a zero byte)."""

    FLAGS = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-pipe"
    )

    ALARMS = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")

    def __init__(self, program: str, folder: Path):
        theirs_in, self.out = os.pipe()
        self.back, theirs_out = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (theirs_in, theirs_out)]

        def wire() -> None:  # in the child: Chromium listens on 3 and answers on 4
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [program, *self.FLAGS.split(), f"--user-data-dir={folder}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        self.number, self.rest, self.session, self.problems = 0, b"", None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def send(self, method: str, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.back, 1 << 16)
                assert more, "the browser is gone"
                self.rest += more
            text, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("method") in self.ALARMS:
                self.problems.append(text.decode()[:600])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, code: str):
        answer = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, code: str, seconds: float = 30):
        """Wait until ``code`` is true; the limit only ends a test that has failed."""
        end = time.monotonic() + seconds
        # An error counts as false: the page may just be loading.
        guarded = f"(() => {{ try {{ return Boolean({code}); }} catch {{ return false; }} }})()"
        while not (value := self.run(guarded)):
            assert time.monotonic() < end, (code, self.run("document.body.innerText")[:2000], self.problems)
            time.sleep(0.03)
        return value

    def open(self, address: str) -> None:
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=address)
        self.until("document.querySelector('#detail .tracks, #detail .note, #notes .note, #rows .empty')")

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.back)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = (os.environ.get("CHROMIUM") or "chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium (on the path, or $CHROMIUM)")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def test_hostile_episodes_run_nothing_in_a_browser(browser, tmp_path):
    hostile = record(HOSTILE, goal=HOSTILE, error=HOSTILE, final_observation=HOSTILE)
    for step in hostile["steps"]:
        step |= dict.fromkeys(("observation", "text", "action", "feedback", "prompt"), HOSTILE)
        step |= {"defects": [HOSTILE], "terms": {HOSTILE: 1.0, "__proto__": 2.0}, "valid": False}
    hostile["reflection"] |= {"text": HOSTILE, "prompt": HOSTILE, "defects": [HOSTILE], "terms": {HOSTILE: 1}}
    write(place(tmp_path, "eval-<img src=x onerror=alert(1)>"), [hostile, hostile])
    (tmp_path / "config.yaml").write_text(json.dumps({"method": HOSTILE, "seed": HOSTILE}))
    with serving(tmp_path) as server:
        browser.problems.clear()
        browser.open(f"{server.url}#{urlencode({'text': 'onerror', 'trouble': f'defect:{clean(HOSTILE)}'})}")
        browser.until("document.querySelector('#detail mark')")
        browser.open(f"{server.url}#text=onerror")
        browser.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        for key in ("ArrowRight", "j", "k"):
            browser.press(key)
        browser.until("document.querySelector('#detail mark')")
        assert browser.run("document.documentElement.dataset.ran") is None
        live = "img, script:not([src]), [onload], [onerror]"
        assert browser.run(f"document.querySelectorAll('{live}').length") == 0
        assert browser.run("[...document.scripts].every((s) => s.src.startsWith(location.origin))")
        assert "<script>document" in browser.text("#detail .goal")
        assert "␛[31m␀[U+202E]" in browser.text("#detail pre")
        # Were markup written by mistake, or by an extension, the policy would still stop it.
        blocked = "try { document.body.innerHTML = '<b>'; 'written' } catch (error) { error.name }"
        assert browser.run(blocked) == "TypeError"
        assert browser.problems == [] or all("TrustedHTML" in text for text in browser.problems)


def test_a_person_filters_steps_and_shares_the_address(browser, run):
    with serving(run) as server:
        browser.problems.clear()
        browser.open(server.url)
        assert browser.text("#count").startswith("7 of 7 episodes, 2 won")
        browser.run("document.querySelector('#presets button').click()")
        browser.until("document.querySelectorAll('#rows tr').length === 2")
        browser.until("location.hash.includes('believed=80') && location.hash.includes('t=2')")  # the claim
        assert browser.text("#detail output") == "step 2 of 2"
        browser.press("ArrowLeft")
        assert browser.text("#detail output") == "step 1 of 2"
        browser.press("j")
        browser.until("location.hash.includes('iteration-00001%2F2')")
        browser.until("document.querySelector('#detail .tags').innerText.includes('score 0.5')")
        browser.press("k")
        browser.until("location.hash.includes('iteration-00001%2F1')")
        browser.run("document.querySelector('.group .other').click()")
        browser.until("document.querySelectorAll('.column').length === 2")
        address = browser.run("location.href")
        browser.open(address)
        browser.until("document.querySelectorAll('.column').length === 2")
        assert browser.run("location.href") == address
        assert browser.run("document.querySelectorAll('#rows tr').length") == 2
        browser.press("/")
        assert browser.run("document.activeElement.id") == "f-text"
        browser.press("j")  # typed, not obeyed
        browser.until("document.querySelectorAll('#rows td.empty').length === 1")
        assert browser.problems == []


def test_a_deep_link_opens_the_episode_at_its_step(browser, run):
    with serving(run) as server:
        browser.open(f"{server.url}#at=0/{IT}/3&t=2")
        browser.until("document.querySelector('#detail output')")
        assert browser.text("#detail output") == "step 2 of 2"
        assert browser.text("#detail .head").startswith("won")
        browser.open(f"{server.url}#at=0/{IT}/99")
        browser.until("document.body.innerText.includes('no such episode')")
        browser.open(f"{server.url}#sort=nonsense")
        browser.until("document.body.innerText.includes('Unknown sort')")


def test_episodes_recorded_meanwhile_appear(browser, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with serving(tmp_path) as server:
        browser.send("Page.navigate", url=server.url)
        browser.until("document.body.innerText.includes('No episode is recorded yet')")
        write(place(tmp_path), [record()])
        browser.run("document.getElementById('reset').click()")
        browser.until("document.querySelectorAll('#rows tr[data-key]').length === 1")
        browser.until("document.querySelector('#detail .tracks')")
