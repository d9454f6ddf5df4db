"""The store of answers: durable, shared by processes, and nothing is asked twice."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from repro_rl.config import ApiSection
from repro_rl.errors import DataError
from repro_rl.policy.http import Answer, AnswerStore, ChatClient
from support.api_questions import ask, texts
from support.api_server import completion


def test_the_store_keeps_what_it_was_given(tmp_path):
    store = AnswerStore(tmp_path)
    answer = Answer("ünï 漢字 \x00 \n", "stop", 1, 2, 3, True)
    store.put("ab" * 32, "m", answer)
    store.put("ab" * 32, "m", Answer("later", "stop", 0, 0))
    assert AnswerStore(tmp_path).get("ab" * 32) == answer
    assert store.get("cd" * 32) is None


def test_a_broken_store_is_named(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match=r"answers\.sqlite: the store of answers cannot be used.*api\.cache"):
        AnswerStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"api\.cache"):
        AnswerStore(tmp_path / "file" / "cache")
    store = AnswerStore(tmp_path / "good")
    store.put("00" * 32, "m", Answer("x", "stop", 0, 0))
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE answers SET answer = '{}'")
    with pytest.raises(DataError, match=f"record {'00' * 32}: not an answer"):
        store.get("00" * 32)


def test_answers_that_wait_share_a_commit_and_its_error(tmp_path):
    """While one thread holds the file, four others wait; a commit stores all of them or none."""
    store = AnswerStore(tmp_path)
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)

    def put_four(first: int) -> list[object]:
        with ThreadPoolExecutor(4) as pool:
            with store._lock:
                done = [
                    pool.submit(store.put, f"{first + n:064x}", "m", Answer("x", "stop", 0, 0))
                    for n in range(4)
                ]
                while len(store._waiting) < 4:
                    time.sleep(0.001)
            return [future.exception() for future in done]

    assert put_four(0) == [None] * 4
    assert len(store) == 4
    assert statements.count("COMMIT") == 1
    store._db.execute("ALTER TABLE answers RENAME TO elsewhere")
    errors = put_four(4)
    assert all(isinstance(error, DataError) and "no such table" in str(error) for error in errors)
    store._db.execute("ALTER TABLE elsewhere RENAME TO answers")
    assert put_four(8) == [None] * 4
    assert len(store) == 8
    store.put("aa" * 32, "half a character \ud800", Answer("x", "stop", 0, 0))  # of a command line


def ask_in_a_child(url, folder, start, results):
    start.wait(20)
    with ChatClient(ApiSection(base_url=url, model="m", cache=folder, concurrency=4)) as client:
        results.put(texts(client.ask([ask(str(i)) for i in range(24)])))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the locks are those of POSIX")
def test_two_processes_share_a_store_and_ask_nothing_twice(server, tmp_path):
    def reply(body, number):
        server.release.wait(0.03)
        return completion(body["messages"][0]["content"] * 2)

    server.reply = reply
    fork = multiprocessing.get_context("fork")  # a fresh interpreter would take seconds to import
    start, results = fork.Barrier(2), fork.Queue()
    both = [
        fork.Process(target=ask_in_a_child, args=(server.url, tmp_path, start, results)) for _ in range(2)
    ]
    for process in both:
        process.start()
    assert [results.get(timeout=60) for _ in both] == [[str(i) * 2 for i in range(24)]] * 2
    for process in both:
        process.join(20)
    assert server.calls == 24


def test_threads_that_ask_the_same_question_pay_once(server, make_client):
    """Four threads of one client, each with a batch of its own."""

    def reply(body, number):
        server.release.wait(0.1)
        return completion("paid")

    server.reply = reply
    client = make_client()
    start = threading.Barrier(4)

    def one(_: int) -> list[object]:
        start.wait(10)
        return texts(client.ask([ask("same"), ask("other")]))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [["paid", "paid"]] * 4
    usage = client.spending.summary()
    assert server.calls == 2
    assert (usage["calls_sent"], usage["answers_new"], usage["answers_found"]) == (2, 2, 0)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (20, 10)


def test_a_question_is_let_go_when_its_thread_is_done(tmp_path):
    """A thread waits for the one that asks; one whose batch is over does not."""
    store, key = AnswerStore(tmp_path), "ab" * 32
    order: list[str] = []
    never, over = threading.Event(), threading.Event()
    over.set()

    def second() -> None:
        with store.lock_question(key, never):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with store.lock_question(key, never):
            waits = pool.submit(second)
            with store.lock_question(key, over):
                order.append("over")
            with store.lock_question("cd" * 32, never):
                order.append("another question")
            time.sleep(0.05)
            order.append("first")
        waits.result(10)
    assert order == ["over", "another question", "first", "second"]
    assert store._questions._held == {}


def open_in_a_child(folder, start, results):
    start.wait(20)
    try:
        AnswerStore(folder).close()
        results.put(None)
    except DataError as error:
        results.put(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fresh interpreter would take seconds to import")
def test_processes_may_open_a_new_store_at_the_same_moment(tmp_path):
    fork = multiprocessing.get_context("fork")
    for attempt in range(15):
        start, results = fork.Barrier(4), fork.Queue()
        children = [
            fork.Process(target=open_in_a_child, args=(tmp_path / str(attempt), start, results))
            for _ in range(4)
        ]
        for child in children:
            child.start()
        assert [results.get(timeout=60) for _ in children] == [None] * 4
        for child in children:
            child.join(20)
