"""The warmup as a whole."""

from __future__ import annotations


def test_warmup_learns_both_kinds(warm):
    assert [row["iteration"] for row in warm.rows] == list(range(1, 101))
    for name in ("warmup/forward_loss", "warmup/reflect_loss"):
        assert warm.rows[-1][name] < 0.3 * warm.rows[0][name]
        assert 3 < warm.rows[0][name] < 6  # untrained: about uniform over some 90 words, ln 90 = 4.5
    # The decisions are learnt too, from one of 20 words right by chance to most.
    assert warm.rows[0]["warmup/action_accuracy"] < 0.2
    assert warm.rows[-1]["warmup/action_accuracy"] > 0.4
    assert "warmup/held_out_loss" not in warm.rows[-1]  # nothing is held out
