"""Which goals belong to a split."""

from __future__ import annotations

import pytest

from repro_rl.errors import TaskError
from support.webshop_shop import shop


def test_no_product_is_the_target_of_two_splits() -> None:
    env = shop()
    targets = {s: {env.goal(t).asin for t in env.panel(s)} for s in ("train", "validation", "test")}
    assert all(targets.values())
    assert not targets["train"] & targets["test"]
    assert not targets["train"] & targets["validation"]
    assert not targets["validation"] & targets["test"]
    head = [env.goal(task).asin for task in env.panel("test").ids[: len(targets["test"])]]
    assert len(set(head)) == len(head), "each product's first goal comes before any product's second"


def test_splits_by_position_are_the_usual_ranges() -> None:
    env = shop(generated=(500, 0), splits="position")
    every = env.panel("all").ids
    assert len(every) > 1_500
    assert env.panel("test").ids == every[:500]
    assert env.panel("eval").ids == env.panel("validation").ids == every[500:1500]
    assert env.panel("train").ids == every[1500:]
    assert env.panel("rest").ids == every[500:]
    with pytest.raises(TaskError, match=r"no split 'tset'.*'test'"):
        env.panel("tset")
