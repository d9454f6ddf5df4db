"""Texts for the tests of the search engine."""

from __future__ import annotations

from hypothesis import strategies as st

PIECES = st.text(
    st.one_of(
        st.sampled_from(
            "ab1_.,:;'\"’＇ -#*\u200d\u0301\ufe0e\ufe0f\u20e3★Ⓜ👩\U0001f3fb\U0001f1fa漢あアกิא가İΣ𝐁\ud800"
        ),
        st.characters(),
    ),
    max_size=40,
)
