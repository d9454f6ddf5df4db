"""Text: total parsers, prompts, and targets that read back as they were written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repro_rl.errors import ConfigError
from repro_rl.text import PromptBuilder, ReflectStep, TextFormat, parse_forward, parse_reflection

FULL = TextFormat("full", progress=True, think="optional")
THINK = TextFormat("full", progress=True, think="required")
NO_THINK = TextFormat("full", progress=True, think="off")
PLAIN = TextFormat("full", progress=False, think="off")
COMPACT = TextFormat("compact", progress=True)
COMPACT_PLAIN = TextFormat("compact", progress=False)
LATE = TextFormat("full", progress=True, think="optional", report="after")
COMPACT_LATE = TextFormat("compact", progress=True, report="after")
FORMATS = [FULL, THINK, NO_THINK, PLAIN, LATE, COMPACT, COMPACT_PLAIN, COMPACT_LATE]

# --- forward, by example


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
def test_forward_examples(
    fmt: TextFormat, text: str, action: str, online: int | None, defects: tuple[str, ...]
) -> None:
    parsed = parse_forward(text, fmt)
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
    parsed = parse_forward(f"<progress>{number}</progress><action>up</action>", FULL)
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
    forward = parse_forward(text, fmt)
    assert forward.online is None or 0 <= forward.online <= 100
    assert forward.online is not None or forward.defects or not fmt.progress
    assert bool(forward.action) or {"no_action", "empty_action"} & set(forward.defects)
    assert 0 <= forward.action_start <= forward.action_end <= len(text)
    reflection = parse_reflection(text, fmt, length)
    assert (reflection.values is None) == bool(reflection.defects)
    if reflection.values is not None:
        assert len(reflection.values) == length
        assert all(0 <= value <= 100 for value in reflection.values)
    for defect in (*forward.defects, *reflection.defects):
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
                builder.render_forward_target(40, "go up", "hm"),
                builder.render_reflection_target([1, 50, 100], "hm"),
            ]
        )
    )
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, len(text)))
    damaged = text[:start] + data.draw(st.text(max_size=4)) + text[stop:]
    parse_forward(damaged, fmt)
    reflection = parse_reflection(damaged, fmt, 3)
    assert (reflection.values is None) == bool(reflection.defects)


@pytest.mark.parametrize("fmt", [THINK, COMPACT])
def test_long_texts_take_no_time(fmt: TextFormat) -> None:
    pieces = [*PIECES, "<think></think>", "<progress><action>", "p1 ", "t1 ", "step 1", "<progress>step 1 "]
    start = time.perf_counter()
    for piece in pieces:
        for text in (
            piece * (100_000 // len(piece)),
            "<progress>step" + piece + " " * 100_000 + "x</progress>",
        ):
            parse_forward(text, fmt)
            parse_reflection(text, fmt, 3)
    assert time.perf_counter() - start < 15  # 1 s when idle; anything quadratic takes minutes


# --- targets read back


def clean(text: str) -> bool:
    return not any(
        f"<{slash}{name}>" in text for slash in ("", "/") for name in ("think", "progress", "action")
    )


@settings(deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([1, 5, 10, 25]),
    st.integers(0, 100),
    st.text(min_size=1),
    st.text(),
)
def test_forward_target_reads_back(
    fmt: TextFormat, resolution: int, online: int, action: str, think: str
) -> None:
    assume(action.strip() and clean(action) and clean(think))
    assume(not (fmt is COMPACT and action.split()[0][0] == "p"))
    assume(not (fmt is COMPACT_LATE and action.split()[-1][0] == "p"))
    builder = PromptBuilder(fmt, resolution=resolution)
    parsed = parse_forward(builder.render_forward_target(online, action, think), fmt)
    assert parsed.defects == ()
    assert parsed.action == (" ".join(action.split()) if fmt.style == "compact" else action.strip())
    assert parsed.online == (builder.round_progress(online) if fmt.progress else None)


@settings(deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([1, 5, 10, 25]),
    st.lists(st.integers(0, 100), min_size=1, max_size=50),
    st.text(),
)
def test_reflection_target_reads_back(
    fmt: TextFormat, resolution: int, values: list[int], think: str
) -> None:
    assume(clean(think))
    builder = PromptBuilder(fmt, resolution=resolution)
    parsed = parse_reflection(builder.render_reflection_target(values, think), fmt, len(values))
    assert parsed == (tuple(map(builder.round_progress, values)), ())


def test_rounding_keeps_the_ends_for_themselves() -> None:
    builder = PromptBuilder(COMPACT, resolution=10)
    given_values = [0, 1, 4, 14, 15, 45, 94, 95, 99, 100]
    assert [builder.round_progress(value) for value in given_values] == [
        0,
        10,
        10,
        10,
        20,
        50,
        90,
        90,
        90,
        100,
    ]
    exact = PromptBuilder(FULL)
    assert [exact.round_progress(value) for value in range(101)] == list(range(101))
    assert [PromptBuilder(FULL, resolution=25).round_progress(v) for v in (12, 13, 37, 38)] == [
        25,
        25,
        25,
        50,
    ]


def test_target_texts() -> None:
    assert PromptBuilder(FULL).render_forward_target(40, "up") == "<progress>40</progress><action>up</action>"
    assert PromptBuilder(THINK).render_forward_target(40, "up", "a") == (
        "<think>a</think><progress>40</progress><action>up</action>"
    )
    assert PromptBuilder(PLAIN).render_forward_target(None, "up", "a") == "<action>up</action>"
    assert PromptBuilder(COMPACT).render_forward_target(40, "go to desk 1") == "p40 go to desk 1"
    assert PromptBuilder(COMPACT_PLAIN).render_forward_target(40, "up") == "up"
    assert PromptBuilder(COMPACT_LATE).render_forward_target(40, "go to desk 1") == "go to desk 1 p40"
    assert PromptBuilder(LATE).render_forward_target(40, "up") == "<action>up</action><progress>40</progress>"
    assert PromptBuilder(COMPACT).render_reflection_target([20, 100]) == "t1 p20 t2 p100"


def test_targets_that_cannot_be_written() -> None:
    builder = PromptBuilder(FULL)
    for match, call in (
        ("needs a progress value", lambda: builder.render_forward_target(None, "up")),
        ("outside 0..100", lambda: builder.render_forward_target(101, "up")),
        ("empty_action", lambda: builder.render_forward_target(1, " ")),
        ("duplicate_action", lambda: builder.render_forward_target(1, "a</action><action>b")),
        ("thought", lambda: builder.render_forward_target(1, "a", "x</think>")),
        ("at least one value", lambda: builder.render_reflection_target([])),
        ("duplicate_progress", lambda: PromptBuilder(COMPACT).render_forward_target(1, "p4 up")),
    ):
        with pytest.raises(ConfigError, match=match):
            call()


# --- prompts

STEPS = [
    ReflectStep(1, "##\n#.", "up", "moved\nup", "box  far"),
    ReflectStep(2, "moved\nup", "", "nothing happened", "box near"),
]


def forward(builder: PromptBuilder, step: int = 4, **changes: object) -> str:
    arguments: dict[str, object] = {
        "instructions": "You push boxes.",
        "goal": "Put the box on the target.",
        "observation": f"view\n{step}",
        "admissible": ["up", "down"],
        "history": [(f"seen {t}", f"did {t}") for t in range(1, step)],
        "step": step,
        "max_steps": 15,
    }
    return builder.forward(**(arguments | changes))  # type: ignore[arg-type]


def reflect(builder: PromptBuilder, **changes: object) -> str:
    arguments: dict[str, object] = {
        "instructions": "You push boxes.",
        "goal": "Put the box on the target.",
        "steps": STEPS,
        "won": True,
        "score": 1.0,
        "first_observation": "start\nhere",
    }
    return builder.reflect(**(arguments | changes))  # type: ignore[arg-type]


def test_full_forward() -> None:
    prompt = forward(PromptBuilder(FULL))
    for part in (
        "Put the box",
        "view\n4",
        "step 4 of at most 15",
        "- up\n- down\n",
        "<progress>40</progress>",
    ):
        assert part in prompt
    assert "[Step 2] Observation: seen 2\n[Step 2] Action: did 2\n[Step 3] Observation: seen 3" in prompt
    assert "seen 1" not in prompt
    assert "seen" not in forward(PromptBuilder(FULL, history=0))
    assert "seen" not in forward(PromptBuilder(FULL), step=1)
    plain = forward(PromptBuilder(PLAIN))
    assert "progress" not in plain
    assert "think" not in plain
    assert "Possible actions" not in forward(PromptBuilder(PLAIN), admissible=[])


def test_the_report_is_asked_for_where_it_is_read() -> None:
    early, late = forward(PromptBuilder(FULL)), forward(PromptBuilder(LATE))
    assert "<think>...</think><progress>40</progress><action>...</action>\n" in early
    assert "<think>...</think><action>...</action><progress>40</progress>\n" in late
    assert early.index("2. Say how far") < early.index("3. Give exactly one action")
    assert late.index("2. Give exactly one action") < late.index("3. Say how far")


@pytest.mark.parametrize("fmt", [FULL, THINK, NO_THINK, PLAIN, LATE])
def test_the_static_part_comes_first(fmt: TextFormat) -> None:
    builder = PromptBuilder(fmt)
    prompts = [forward(builder, step) for step in (1, 2, 3, 9)]
    same = [len(set(letters)) == 1 for letters in zip(*prompts, strict=False)]
    prefix = prompts[0][: same.index(False)]
    assert prefix.startswith("You push boxes.")
    assert "<action>...</action>" in prefix
    assert "Your task: Put the box on the target." in prefix


def test_full_reflect() -> None:
    won = reflect(PromptBuilder(FULL))
    assert won.startswith("You push boxes.")
    assert (
        "observation: start\nhere\n[Step 1] Action: up\n[Step 1] Result: moved\nup\n[Step 2] Action: none"
        in won
    )
    assert "the attempt succeeded.\nNow give the 2 values, step 1 to step 2; the last is 100." in won
    lost = reflect(PromptBuilder(FULL), won=False, score=0.25)
    assert "the attempt failed, with a score of 0.25" in lost
    assert "all below 100." in lost
    assert "score" not in reflect(PromptBuilder(FULL), won=False, score=0.0)
    assert "First reason inside <think> and </think>. Then give\none line" in reflect(PromptBuilder(THINK))
    assert "How to answer:\nGive\none line" in reflect(PromptBuilder(PLAIN))


def test_compact_prompts_are_one_line() -> None:
    builder = PromptBuilder(COMPACT)
    assert builder.history == 0
    assert forward(builder) == "view 4 progress"
    assert forward(PromptBuilder(COMPACT_PLAIN)) == "view 4 act"
    assert reflect(builder) == "reflect won start here up box far t1 none box near t2 judge"
    assert reflect(builder, won=False) == "reflect lost start here up box far t1 none box near t2 judge"


def test_compact_words_cover_templates_and_targets() -> None:
    builder = PromptBuilder(COMPACT, resolution=10)
    words = builder.words(3)
    assert {"p0", "p10", "p100", "t1", "t3"} <= words
    assert not {"p5", "t0", "t4"} & words
    env = {"view", "4", "start", "here", "up", "box", "far", "near"}
    texts = [
        forward(builder),
        forward(PromptBuilder(COMPACT_PLAIN)),
        reflect(builder),
        reflect(builder, won=False),
    ]
    texts += [builder.render_forward_target(44, "up"), builder.render_reflection_target([3, 55, 99])]
    assert {word for text in texts for word in text.split()} <= words | env
    with pytest.raises(ConfigError, match="compact"):
        PromptBuilder(FULL).words(3)


def test_compact_rendering_is_fast() -> None:
    builder = PromptBuilder(COMPACT)
    start = time.perf_counter()
    for _ in range(2000):
        forward(builder)
    assert time.perf_counter() - start < 1.0  # about 0.03 s when idle


def test_own_templates(tmp_path: Path) -> None:
    (tmp_path / "forward.jinja").write_text("{{ goal }}!{{ history | length }}")
    builder = PromptBuilder(FULL, history=1, template_dir=tmp_path)
    assert forward(builder) == "Put the box on the target.!1"
    assert reflect(builder) == reflect(PromptBuilder(FULL))  # not replaced


def test_broken_templates_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds neither forward\.jinja nor reflect\.jinja"):
        PromptBuilder(FULL, template_dir=tmp_path)
    file = tmp_path / "reflect.jinja"
    file.write_text("{{ goal }}\n{% if %}")
    with pytest.raises(ConfigError, match=r"reflect\.jinja, line 2, is broken"):
        PromptBuilder(FULL, template_dir=tmp_path)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"reflect\.jinja cannot be read as UTF-8"):
        PromptBuilder(FULL, template_dir=tmp_path)
    file.write_text("{{ gaol }}")
    builder = PromptBuilder(FULL, template_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"reflect\.jinja cannot be rendered: 'gaol' is undefined"):
        reflect(builder)


def test_bad_settings() -> None:
    for match, call in (
        (r"text\.style.*did you mean 'compact'", lambda: TextFormat("compct")),  # type: ignore[arg-type]
        (r"text\.think", lambda: TextFormat("full", True, "yes")),  # type: ignore[arg-type]
        (r"text\.history", lambda: PromptBuilder(FULL, history=-1)),
        (r"text\.resolution", lambda: PromptBuilder(FULL, resolution=7)),
        (r"text\.resolution", lambda: PromptBuilder(FULL, resolution=100)),
    ):
        with pytest.raises(ConfigError, match=match):
            call()
