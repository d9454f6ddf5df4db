"""One writer a folder: by a lock that dies with its holder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repro_rl.errors import PreflightError
from repro_rl.files import LOCK_FILE, only_maker, only_writer
from repro_rl.files.processes import is_running


@contextmanager
def held(path: Path, *, by_child: bool = False) -> Iterator[int]:
    """A process that holds the lock; ``by_child``: it has died, and its child holds it. Yields its id."""
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        with only_writer(path, "training"):
            if by_child and os.fork():
                os._exit(0)
            os.write(told, str(os.getpid()).encode() + b"\n")
            time.sleep(60)
        os._exit(0)
    if by_child:
        os.waitpid(pid, 0)
    holder = int(os.read(ready, 20))
    try:
        yield pid
    finally:
        os.kill(holder, signal.SIGKILL)
        if not by_child:
            os.waitpid(pid, 0)


def test_the_second_writer_is_refused_by_the_first_ones_id(tmp_path: Path) -> None:
    lock = tmp_path / "run" / LOCK_FILE
    with held(lock) as pid:
        with pytest.raises(PreflightError, match=rf"Another training \(process id {pid}\) is writing .*run;"):
            only_writer(lock, "training").__enter__()
        assert lock.read_text() == f"{pid}\n"
    with only_writer(lock, "training"):  # its holder was killed
        assert lock.exists()
    assert not lock.exists()


def test_what_a_dead_process_left_behind_is_waited_for_and_named(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_FILE
    with held(lock, by_child=True) as pid:
        with pytest.raises(PreflightError, match=rf"A process that the training of process id {pid} left"):
            only_writer(lock, "training", patience=0.3).__enter__()
        assert lock.exists()
    with only_writer(lock, "training"):
        pass


def test_a_folder_that_appears_as_a_whole_has_its_lock_beside_it(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    (tmp_path / ".shop.4194305.abcdef01.tmp").mkdir()
    (tmp_path / ".other.4194305.tmp").mkdir()
    with only_maker(shop, "import"):
        assert (tmp_path / ".shop.lock").exists()
        with pytest.raises(PreflightError, match=rf"Another import \(process id {os.getpid()}\).*shop;"):
            only_maker(shop, "import").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [".other.4194305.tmp"]


def test_a_lock_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        only_writer(tmp_path / "file" / "run" / LOCK_FILE).__enter__()


def test_only_python_processes_count_as_running() -> None:
    assert is_running(os.getpid())
    assert not is_running(4194305)  # larger than any process id
    pid = os.fork()
    if not pid:
        os.execvp("sleep", ["sleep", "60"])
    try:
        deadline = time.monotonic() + 30
        while is_running(pid):  # until it is the other program
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not is_running(pid)


def test_folders_made_for_a_lock_go_again_where_nothing_was_written(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / "api-foo" / "eval" / LOCK_FILE
    with pytest.raises(ValueError, match="later"), only_writer(lock):
        raise ValueError("later")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with only_writer(lock):
        (lock.parent.parent / "config.yaml").touch()
    assert [path.name for path in lock.parent.parent.iterdir()] == ["config.yaml"]
    lock.parent.mkdir()
    with only_writer(lock):
        pass
    assert lock.parent.is_dir()  # it was there before
