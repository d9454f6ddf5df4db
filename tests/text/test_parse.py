"""Parsers: any text gives a value or named defects, never an exception."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from repro_rl.text import PromptBuilder, TextFormat, parse_action, parse_reflection
from support.counting import count_calls
from support.text_formats import (
    COMPACT,
    COMPACT_LATE,
    COMPACT_PLAIN,
    FORMATS,
    FULL,
    LATE,
    NO_THINK,
    PLAIN,
    THINK,
)

# --- acting, by example


@pytest.mark.parametrize(
    ("fmt", "text", "action", "online", "defects"),
    [
        (FULL, "<think>a</think><progress>40</progress><action>push up</action>", "push up", 40, ()),
        (FULL, "<progress> 0 </progress>\n<action>\n up </action>\n", "up", 0, ()),
        (THINK, "<progress>100</progress><action>up</action>", "up", 100, ("no_think",)),
        # the chat template opened the thought
        (THINK, "so <action>x</action>?</think><progress>1</progress><action>up</action>", "up", 1, ()),
        (FULL, "</think><progress>1</progress><action>up</action>", "up", 1, ()),
        (
            NO_THINK,
            "<think></think><progress>1</progress><action>up</action>",
            "up",
            1,
            ("unexpected_think",),
        ),
        (
            THINK,
            "<think>hm <progress>1</progress><action>up</action>",
            "up",
            1,
            ("think_not_closed",),
        ),
        (
            FULL,
            "<think>a</think><think>b</think><progress>1</progress><action>up</action>",
            "up",
            1,
            ("duplicate_think",),
        ),
        (FULL, "<progress>1</progress><think>b</think><action>up</action>", "up", 1, ("wrong_order",)),
        (FULL, "<action>up</action><progress>1</progress>", "up", 1, ("wrong_order",)),
        (FULL, "<action>up</action>", "up", None, ("no_progress",)),
        (
            FULL,
            "<progress>1</progress><progress>1</progress><action>up</action>",
            "up",
            None,
            ("duplicate_progress",),
        ),
        (
            FULL,
            "<progress>1</progress><action>up</action><action>down</action>",
            "down",
            1,
            ("duplicate_action",),
        ),
        (FULL, "<progress>1</progress><action> </action>", "", 1, ("empty_action",)),
        (FULL, "<progress>1</progress>", "", 1, ("no_action",)),
        (FULL, "<progress>1</progress><action>up", "up", 1, ("action_not_closed",)),
        (FULL, "<progress>1<action>up</action>", "up", 1, ("progress_not_closed",)),
        (FULL, "ok: <progress>1</progress><action>up</action>", "up", 1, ("text_outside_tags",)),
        (FULL, "<progress>1</progress><action>up</action></action>", "up", 1, ("stray_tag",)),
        (FULL, "", "", None, ("no_progress", "no_action")),
        (PLAIN, "<action>up</action>", "up", None, ()),
        (PLAIN, "<progress>1</progress><action>up</action>", "up", None, ("unexpected_progress",)),
        (COMPACT, "p40 go to desk 1", "go to desk 1", 40, ()),
        (COMPACT, "  p0   up ", "up", 0, ()),
        (COMPACT, "push up", "push up", None, ("no_progress",)),
        (COMPACT, "p101 up", "up", None, ("progress_out_of_range",)),
        (COMPACT, "p-1 up", "up", None, ("progress_not_integer",)),
        (COMPACT, "p1 p2 up", "up", None, ("duplicate_progress",)),
        (COMPACT, "p1", "", 1, ("no_action",)),
        (COMPACT, "", "", None, ("no_progress", "no_action")),
        (COMPACT_PLAIN, " p1  up", "p1 up", None, ()),
        (LATE, "<think>a</think><action>push up</action><progress>40</progress>", "push up", 40, ()),
        (LATE, "<progress>1</progress><action>up</action>", "up", 1, ("wrong_order",)),
        (LATE, "<action>up</action>", "up", None, ("no_progress",)),
        (LATE, "<progress>1</progress>", "", 1, ("no_action",)),
        (COMPACT_LATE, "push  up p40", "push up", 40, ()),
        (COMPACT_LATE, "p40 push up", "p40 push up", None, ("no_progress",)),
        (COMPACT_LATE, "up p101", "up", None, ("progress_out_of_range",)),
        (COMPACT_LATE, "up p1 p2", "up", None, ("duplicate_progress",)),
        (COMPACT_LATE, "p1", "", 1, ("no_action",)),
        (COMPACT_LATE, " \n", "", None, ("no_progress", "no_action")),
        (COMPACT_PLAIN, " \n", "", None, ("no_action",)),
    ],
)
def test_action_examples(
    fmt: TextFormat, text: str, action: str, online: int | None, defects: tuple[str, ...]
) -> None:
    parsed = parse_action(text, fmt)
    assert parsed[:3] == (action, online, defects)
    if "no_action" in defects:
        assert parsed.action_start == parsed.action_end == len(text)
        return
    part = text[parsed.action_start : parsed.action_end]
    if fmt.style == "full":
        assert part.startswith("<action>")
        assert "progress" not in part or fmt.report == "before"
    else:
        assert part.split() == action.split()


@pytest.mark.parametrize(
    ("number", "online", "defect"),
    [
        ("007", 7, None),
        ("101", None, "progress_out_of_range"),
        ("0000", None, "progress_out_of_range"),
        ("9" * 5000, None, "progress_out_of_range"),
        ("", None, "progress_not_integer"),
        ("-1", None, "progress_not_integer"),
        ("40%", None, "progress_not_integer"),
        ("4.5", None, "progress_not_integer"),
        ("1_0", None, "progress_not_integer"),
        ("NaN", None, "progress_not_integer"),
        ("１００", None, "progress_not_integer"),
        ("²", None, "progress_not_integer"),
        ("٤", None, "progress_not_integer"),
    ],
)
def test_integers(number: str, online: int | None, defect: str | None) -> None:
    parsed = parse_action(f"<progress>{number}</progress><action>up</action>", FULL)
    assert (parsed.action, parsed.online) == ("up", online)
    assert parsed.defects == (() if defect is None else (defect,))
    reflected = parse_reflection(f"<progress>step 1: {number}</progress>", FULL, 1)
    assert reflected.values == (None if online is None else (online,))


# --- reflection, by example


@pytest.mark.parametrize(
    ("fmt", "text", "values", "defects"),
    [
        (FULL, "<progress>\nstep 1: 20\nstep 2: 100\n</progress>", (20, 100), ()),
        (
            FULL,
            "<think>x step 9: 9</think>\n<progress>Step 1:20\n\n step 2 : 100</progress>\n",
            (20, 100),
            (),
        ),
        (FULL, "hm</think><progress>step 1: 20\nstep 2: 30</progress>", (20, 30), ()),
        (THINK, "<progress>step 1: 20\nstep 2: 30</progress>", None, ("no_think",)),
        (FULL, "<progress>step 1: 20</progress>", None, ("wrong_count",)),
        (FULL, "<progress>step 1: 2\nstep 2: 3\nstep 3: 4</progress>", None, ("wrong_count",)),
        (FULL, "<progress>step 2: 20\nstep 1: 30</progress>", None, ("wrong_order",)),
        (FULL, "<progress>step 1: 20\nstep 2: x</progress>", None, ("bad_value",)),
        (FULL, "<progress>step 1: 20\nstep 2: 101</progress>", None, ("out_of_range",)),
        (FULL, "<progress>step 1: 20\nstep 2: 30\ndone</progress>", None, ("bad_line",)),
        (FULL, "<progress>step 1: 20\nstep 2: 30</progress> done", None, ("text_outside",)),
        (FULL, "<progress>step 1: 20\nstep 2: 30</progress><action>up</action>", None, ("text_outside",)),
        (FULL, "<progress>step 1: 20\nstep 2: 30", None, ("progress_not_closed",)),
        (
            FULL,
            "<progress>step 1: 2</progress><progress>step 1: 2\nstep 2: 3</progress>",
            None,
            ("duplicate_progress",),
        ),
        (FULL, "", None, ("no_values",)),
        (FULL, "step 1: 20\nstep 2: 30", None, ("text_outside", "no_values")),
        (COMPACT, "t1 p20 t2 p100", (20, 100), ()),
        (COMPACT, "t1 p20", None, ("wrong_count",)),
        (COMPACT, "t1 p20 t2 p30 t3 p40", None, ("wrong_count",)),
        (COMPACT, "t2 p20 t1 p30", None, ("wrong_order",)),
        (COMPACT, "t1 p20 t2 up", None, ("bad_value",)),
        (COMPACT, "t1 p20 t2", None, ("bad_value",)),
        (COMPACT, "t1 p20 t2 p200", None, ("out_of_range",)),
        (COMPACT, "t1 p20 t2 p30 p40", None, ("text_outside",)),
        (COMPACT, "", None, ("no_values",)),
    ],
)
def test_reflection_examples(
    fmt: TextFormat, text: str, values: tuple[int, ...] | None, defects: tuple[str, ...]
) -> None:
    assert parse_reflection(text, fmt, 2) == (values, defects)


def test_reflection_on_nothing() -> None:
    assert parse_reflection("", COMPACT, 0) == (None, ("no_values",))
    assert parse_reflection("t1 p1", COMPACT, 0) == (None, ("no_values",))


# --- totality

PIECES = [
    *(f"<{slash}{name}>" for slash in ("", "/") for name in ("think", "progress", "action")),
    *("40", "p40", "t1", "t2", "step 1: 5", "step 2: NaN", "up", " ", "\n", "<", "</"),
    *("１００", "9" * 5000, "\x85", "\0"),
]
ANY = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=25).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join),
)


@settings(max_examples=400, deadline=None)
@given(ANY, st.sampled_from(FORMATS), st.integers(-1, 4))
def test_any_text_gives_a_value_or_defects(text: str, fmt: TextFormat, length: int) -> None:
    action = parse_action(text, fmt)
    assert action.online is None or 0 <= action.online <= 100
    assert action.online is not None or action.defects or not fmt.progress
    assert bool(action.action) or {"no_action", "empty_action"} & set(action.defects)
    assert 0 <= action.action_start <= action.action_end <= len(text)
    reflection = parse_reflection(text, fmt, length)
    assert (reflection.values is None) == bool(reflection.defects)
    if reflection.values is not None:
        assert len(reflection.values) == length
        assert all(0 <= value <= 100 for value in reflection.values)
    for defect in (*action.defects, *reflection.defects):
        assert defect.replace("_", "").isalpha()
        assert defect.islower()


@settings(deadline=None)
@given(st.data())
def test_damaged_valid_texts(data: st.DataObject) -> None:
    fmt = data.draw(st.sampled_from(FORMATS))
    builder = PromptBuilder(fmt)
    text = data.draw(
        st.sampled_from(
            [
                builder.action_target(40, "go up", "hm"),
                builder.reflection_target([1, 50, 100], "hm"),
            ]
        )
    )
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    damaged = text[:start] + data.draw(st.text(max_size=4)) + text[stop:]
    parse_action(damaged, fmt)
    reflection = parse_reflection(damaged, fmt, 3)
    assert (reflection.values is None) == bool(reflection.defects)


LONG = [*PIECES, "<think></think>", "<progress><action>", "p1 ", "t1 ", "step 1", "<progress>step 1 "]


def long_texts(piece: str, length: int) -> list[str]:
    return [piece * (length // len(piece)), "<progress>step" + piece + " " * length + "x</progress>"]


@pytest.mark.parametrize("fmt", [THINK, COMPACT])
def test_work_grows_with_the_length_and_not_faster(fmt: TextFormat) -> None:
    def work(piece: str, length: int) -> int:
        texts = long_texts(piece, length)
        return count_calls(lambda: [(parse_action(t, fmt), parse_reflection(t, fmt, 3)) for t in texts])

    for piece in LONG:
        assert work(piece, 8_000) <= 4.2 * work(piece, 2_000) + 50


@pytest.mark.parametrize("fmt", [THINK, COMPACT])
def test_long_texts_are_parsed(fmt: TextFormat) -> None:
    # Also what one call of a regular expression or of str.find does must be linear: anything quadratic
    # would take minutes here.
    for piece in LONG:
        for text in long_texts(piece, 100_000):
            assert parse_action(text, fmt).action_end <= len(text)
            assert parse_reflection(text, fmt, 3).defects
