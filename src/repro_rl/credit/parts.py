"""The pieces that several rules share: relative values, value tables over states, distances to success."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

import numpy as np

from repro_rl.credit.baseline import Floats, Normalize, normalise
from repro_rl.credit.inputs import CreditInputs, Indices

GOAL = object()  # the one node that every win of a task ends in


def relative(values: Floats, ids: Indices, normalize: Normalize) -> Floats:
    """[n], each value relative to the equal-weighted mean of its id; 0 for a value alone there."""
    return normalise(values, ids, np.ones_like(values), normalize, lone_keeps_value=False)


def standard(values: Floats, ids: Indices, epsilon: float) -> Floats:
    """[n], (value - mean) / (sample standard deviation + epsilon) of its id; 0 for a value alone there."""
    if not ids.size:
        return values
    count = np.bincount(ids)[ids]
    deviation = values - np.bincount(ids, weights=values)[ids] / count
    variance = np.bincount(ids, weights=deviation**2)[ids] / np.maximum(count - 1, 1)
    return np.where(count > 1, deviation / (np.sqrt(variance) + epsilon), 0.0)


def standard_in_tasks(values: Floats, inputs: CreditInputs, epsilon: float) -> Floats:
    """[N], trajectories ``standard`` in their tasks; one without a step is in no baseline, and 0 itself."""
    played = inputs.sizes > 0
    out = np.zeros_like(values)
    out[played] = standard(values[played], inputs.tasks[played], epsilon)
    return out


def means(values: Floats, ids: Indices, mask: Sequence[bool] | None = None) -> Floats:
    """[n], the mean of the values with the same id; ``mask``: those that count. NaN where none does."""
    weight = np.ones_like(values) if mask is None else np.asarray(mask, dtype=np.float64)
    size = int(ids.max()) + 1 if ids.size else 0
    total = np.bincount(ids, weights=weight, minlength=size)
    summed = np.bincount(ids, weights=np.where(weight > 0, values, 0.0) * weight, minlength=size)
    mean = np.divide(summed, total, out=np.full(size, np.nan), where=total > 0)
    result: Floats = mean[ids]
    return result


def following(inputs: CreditInputs, values: Floats, last: Floats) -> Floats:
    """[R], at each step the value of the next one; at the last steps ``last`` [N]."""
    result = np.empty_like(values)
    result[:-1] = values[1:]
    sizes = inputs.sizes
    ends = np.cumsum(sizes)[sizes > 0] - 1
    result[ends] = last[sizes > 0]
    return result


def steps_left(inputs: CreditInputs) -> Indices:
    """[R], T - t for t = 1..T: 0 at the last step."""
    sizes = inputs.sizes.tolist()
    return np.asarray([size - 1 - t for size in sizes for t in range(size)], dtype=np.intp)


def judged_states(inputs: CreditInputs) -> tuple[Floats, Floats]:
    """Judged worth (fractions) of the state before each step [R], and after each trajectory's end [N].

    A state is worth the mean of all judgements of it in its task: P_(t-1) before step t, P_t after it. The
    start state is 0 by definition (decision D1), also when it is reached again, as in ``pool``. A state that
    nothing judged is NaN. After a win the worth is 1. Where no state after the end is known, the end is
    judged by itself.
    """
    series, finals = inputs.need("judged"), inputs.final_anchors
    anchors, tasks = inputs.need("anchors"), inputs.tasks.tolist()
    seen: dict[Hashable, list[float]] = {}
    starts: set[Hashable] = set()
    for n, values in enumerate(series):
        if values is None:
            continue
        last = [] if finals is None or finals[n] is None else [finals[n]]
        keys = [*anchors[n], *last]
        for key, value in zip(keys, values[: len(keys)], strict=True):
            seen.setdefault((tasks[n], key), []).append(value)
        if len(anchors[n]):
            starts.add((tasks[n], anchors[n][0]))
    worth = {key: 0.0 if key in starts else sum(values) / len(values) for key, values in seen.items()}
    before = [worth.get((tasks[n], key), np.nan) for n, keys in enumerate(anchors) for key in keys]
    won = inputs.need("won")
    after = []
    for n, values in enumerate(series):
        own = np.nan if values is None else values[-1]
        key = None if finals is None else finals[n]
        after.append(1.0 if won[n] else own if key is None else worth.get((tasks[n], key), own))
    return np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)


def distances(inputs: CreditInputs) -> tuple[Indices, Indices]:
    """Actions from the state before [R], and after [R], each step to success, in the graph of its task.

    Nodes are states; each step is an edge, and the last one of a win leads to the goal. What no path leads
    from has one more than the largest finite distance of its task.
    """
    anchors, reached, won = inputs.need("anchors"), inputs.need("reached"), inputs.need("won")
    tasks = inputs.tasks.tolist()
    edges: dict[int, dict[Hashable, set[Hashable]]] = {task: {} for task in tasks}  # node -> those before it
    ends = [[GOAL if won[n] and t == len(row) - 1 else key for t, key in enumerate(row)]
            for n, row in enumerate(reached)]  # fmt: skip
    for n, row in enumerate(ends):
        for before, after in zip(anchors[n], row, strict=True):
            edges[tasks[n]].setdefault(after, set()).add(before)
    found = {task: _search(back) for task, back in edges.items()}
    beyond = {task: 1 + max(distance.values()) for task, distance in found.items()}

    def of(rows: Sequence[Sequence[Hashable]]) -> Indices:
        return np.asarray(
            [found[tasks[n]].get(key, beyond[tasks[n]]) for n, row in enumerate(rows) for key in row],
            dtype=np.intp,
        )

    return of(anchors), of(ends)


def _search(back: dict[Hashable, set[Hashable]]) -> dict[Hashable, int]:
    """Edges to the goal from every node that a path leads from, over the reversed edges."""
    distance: dict[Hashable, int] = {GOAL: 0}
    queue: deque[Hashable] = deque([GOAL])
    while queue:
        node = queue.popleft()
        for before in back.get(node, ()):
            if before not in distance:
                distance[before] = distance[node] + 1
                queue.append(before)
    return distance
