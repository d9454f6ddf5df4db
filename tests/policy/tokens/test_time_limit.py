"""Code that does not end in time."""

from __future__ import annotations

import threading

import pytest

from repro_rl.policy.tokens.time_limit import TookTooLong, time_limit


def endless() -> None:
    while True:
        pass


def test_code_is_ended_in_any_thread() -> None:
    with pytest.raises(TookTooLong, match=r"within 0\.2 seconds"), time_limit(0.2):
        endless()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with time_limit(0.2):
                endless()
        except TookTooLong as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_code_that_ends_is_left_alone() -> None:
    with time_limit(60):
        value = sum(range(10))
    assert value == 45
    with pytest.raises(ValueError, match="own"), time_limit(60):
        raise ValueError("own")
