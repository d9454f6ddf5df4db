"""The server: who may ask, what is served, what answers hold."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from repro_rl.errors import ConfigError
from repro_rl.report.view import make_server
from support.view import (
    HOSTILE,
    Client,
    record,
    serving,
    trajectory_file,
    write_records,
)


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
    for fields, message in (({"sort": "x"}, "Unknown sort"), ({"offset": "a"}, "whole number")):
        status, answer = client.json("/api/list", **fields)
        assert status == 400
        assert message in answer["error"]


def test_answers_hold_no_markup_and_no_control_character(tmp_path):
    hostile = record(HOSTILE, goal=HOSTILE, error=HOSTILE, score=float("nan"))
    hostile["steps"][0] |= {"text": HOSTILE, "defects": [HOSTILE], "terms": {HOSTILE: float("inf")}}
    write_records(trajectory_file(tmp_path), [hostile])
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
