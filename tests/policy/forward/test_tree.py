"""Token trees."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from repro_rl.policy.forward.tree import build_tree

ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=12)


def arrays(rows):
    return [np.array(row, dtype=np.int64) for row in rows]


def test_tree_by_hand():
    tree = build_tree(arrays([[5, 6, 7], [5, 6], [5, 8], [9], [5, 6, 7]]))
    assert len(tree.token) == 5  # 5, 5-6, 5-6-7, 5-8, 9
    assert sorted(zip(tree.depth.tolist(), tree.token.tolist(), strict=True)) == [
        (0, 5), (0, 9), (1, 6), (1, 8), (2, 7)
    ]  # fmt: skip
    assert tree.path[0, :2].tolist() == tree.path[1, :2].tolist()
    assert tree.path[0, 0] == tree.path[2, 0]
    assert tree.ends()[0] == tree.ends()[4]


@settings(deadline=None)
@given(ROWS)
def test_a_tree_has_each_prefix_once(rows):
    tree = build_tree(arrays(rows))
    assert len(tree.token) == len({tuple(row[:i]) for row in rows for i in range(1, len(row) + 1)})
    for r, row in enumerate(rows):
        nodes = tree.path[r, : len(row)]
        assert tree.token[nodes].tolist() == row
        assert tree.depth[nodes].tolist() == list(range(len(row)))
        # an owner's path runs through the node from its first token on
        for node in nodes:
            own = tree.path[tree.owner[node], : tree.depth[node] + 1]
            assert own.tolist() == nodes[: len(own)].tolist()
    assert 0 <= tree.path.min() <= tree.path.max() < len(tree.token)
