"""CUDA graphs of decode steps, with a stand-in for torch.cuda: what is captured, and what is refused."""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch

from repro_rl.policy.decoding.static.step import GraphedSteps


class Card:
    """What ``GraphedSteps`` uses of torch.cuda. A replay runs the captured step again."""

    def __init__(self) -> None:
        self.streams = 0
        self.captures: list[dict[str, Any]] = []
        self.reserved = 1000
        self.empty = self.failing = False

    def stream(self) -> Any:
        self.streams += 1
        return type("Stream", (), {"wait_stream": lambda self, other: None})()

    @contextmanager
    def graph(self, graph: Any, **settings: Any) -> Any:
        self.captures.append(settings)
        yield
        if self.failing:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.reserved += 10
        if self.empty:
            warnings.warn("The CUDA Graph is empty. This usually means", stacklevel=1)


@pytest.fixture
def card(monkeypatch):
    card = Card()
    replaced = {
        "Stream": card.stream,
        "current_stream": lambda: type("Stream", (), {"wait_stream": lambda self, other: None})(),
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": lambda: type("Graph", (), {"replay": lambda self: None})(),
        "graph": card.graph,
        "memory_reserved": lambda: card.reserved,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return card


def test_a_shape_is_captured_once_and_replayed(card):
    steps = []

    def step() -> None:
        steps.append(1)
        card.reserved += 64

    runner = GraphedSteps()
    runner.run("a", step, 4)
    runner.run("a", step, 4)
    runner.run("b", step, 2)
    assert len(steps) == 4  # warmed up and captured, of each shape
    assert (runner.captured, runner.replayed, runner.refused) == (2, 8, "")
    assert card.streams == 1  # libraries that were warmed up on a stream are ready for captures on it
    assert {settings["capture_error_mode"] for settings in card.captures} == {"thread_local"}
    assert len({id(settings["stream"]) for settings in card.captures}) == 1
    assert runner.bytes() == 128
    runner.drop()
    assert runner.bytes() == 0
    runner.run("a", step, 2)
    assert runner.captured == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty", "the captured graph is empty, since the model computes on another device"),
        ("failing", "operation not permitted when stream is capturing"),
    ],
)
def test_a_graph_that_would_do_nothing_is_not_replayed(card, fault, reason):
    setattr(card, fault, True)
    steps = []
    runner = GraphedSteps()
    with pytest.warns(UserWarning, match=f"Decoding without CUDA graphs: {reason}"):
        runner.run("a", lambda: steps.append(1), 4)
    assert (runner.captured, runner.replayed, runner.refused) == (0, 0, reason)
    runner.run("b", lambda: steps.append(1), 4)
    # The step inside the capture is not executed on a card; here it counts.
    assert len(steps) == 1 + 1 + 3 + 4
