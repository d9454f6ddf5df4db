"""``python -m support.simulated_cuda.facts``: what the simulated device has in common with a card."""

from __future__ import annotations

import warnings

import torch


def refused(call: object, words: str) -> bool:
    """Whether ``call`` raises an error with these words."""
    try:
        call()  # type: ignore[operator]
    except (RuntimeError, TypeError) as error:
        return words in str(error)
    return False


def main() -> None:
    """Raise AssertionError where something is not as on a card."""
    here, there = torch.arange(6.0), torch.arange(6.0, device="cuda")
    assert there.device == torch.device("cuda", 0)
    assert type(torch.nn.Linear(2, 2).to("cuda").weight) is torch.nn.Parameter
    # Numbers and indices may come from the host, and nothing else.
    assert (there * torch.tensor(2.0)).tolist() == (here * 2).tolist()
    assert there[torch.tensor([1, 2])].tolist() == [1, 2]
    assert refused(lambda: there + here, "two devices, cuda:0 and cpu")
    assert refused(lambda: there.index_select(0, torch.tensor([1])), "two devices, cuda:0 and cpu")
    assert refused(there.numpy, "can't convert cuda:0 device type tensor to numpy")

    weight = torch.ones(6, device="cuda", requires_grad=True)
    # Torch's thread of a device takes Python's lock after the pass, when this program may be at its end.
    with torch.autograd.set_multithreading_enabled(False):
        (weight * there).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == here.tolist()

    total, step = torch.zeros(1, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    number = 2.0  # what Python knows is fixed by the capture

    def work() -> None:
        total.add_(there.index_select(0, step) * number)
        step.add_(1)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    assert (total.item(), step.item()) == (0, 0)  # nothing was executed
    number = 100.0
    for _ in range(3):
        graph.replay()
    assert (total.item(), step.item()) == (6, 3)
    step.zero_()
    graph.replay()
    assert (total.item(), step.item()) == (6, 1)

    def wait() -> None:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            total.item()

    assert refused(wait, "operation not permitted when stream is capturing")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            here.add(1)
    assert "Graph is empty" in str(caught[-1].message)


if __name__ == "__main__":
    main()
