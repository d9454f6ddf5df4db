"""Layouts and their symmetries."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from repro_rl.envs.sokoban.board import canonical, symmetries


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.data())
def test_canonical_form_is_the_same_for_all_symmetries(rows, cols, data):
    line = st.text("#.$ @", min_size=cols, max_size=cols)
    text = "\n".join(data.draw(st.lists(line, min_size=rows, max_size=rows)))
    turned = symmetries(text)
    assert text in turned
    assert {canonical(other) for other in turned} == {canonical(text)}
