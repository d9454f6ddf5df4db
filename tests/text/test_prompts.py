"""Prompts from template files, and targets that read back as they were written."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from hypothesis import assume, given, settings, strategies as st

from repro_rl.errors import ConfigError
from repro_rl.text import DemoEpisode, DemoStep, PromptBuilder, TextFormat, parse_action, parse_reflection
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
    act_prompt,
    reflect_prompt,
)

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
def test_action_target_reads_back(
    fmt: TextFormat, resolution: int, online: int, action: str, think: str
) -> None:
    assume(action.strip() and clean(action) and clean(think))
    assume(not (fmt is COMPACT and action.split()[0][0] == "p"))
    assume(not (fmt is COMPACT_LATE and action.split()[-1][0] == "p"))
    builder = PromptBuilder(fmt, resolution=resolution)
    parsed = parse_action(builder.action_target(online, action, think), fmt)
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
    parsed = parse_reflection(builder.reflection_target(values, think), fmt, len(values))
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
    assert PromptBuilder(FULL).action_target(40, "up") == "<progress>40</progress><action>up</action>"
    assert PromptBuilder(THINK).action_target(40, "up", "a") == (
        "<think>a</think><progress>40</progress><action>up</action>"
    )
    assert PromptBuilder(PLAIN).action_target(None, "up", "a") == "<action>up</action>"
    assert PromptBuilder(COMPACT).action_target(40, "go to desk 1") == "p40 go to desk 1"
    assert PromptBuilder(COMPACT_PLAIN).action_target(40, "up") == "up"
    assert PromptBuilder(COMPACT_LATE).action_target(40, "go to desk 1") == "go to desk 1 p40"
    assert PromptBuilder(LATE).action_target(40, "up") == "<action>up</action><progress>40</progress>"
    assert PromptBuilder(COMPACT).reflection_target([20, 100]) == "t1 p20 t2 p100"


def test_targets_that_cannot_be_written() -> None:
    builder = PromptBuilder(FULL)
    for match, call in (
        ("needs a progress value", lambda: builder.action_target(None, "up")),
        ("outside 0..100", lambda: builder.action_target(101, "up")),
        ("empty_action", lambda: builder.action_target(1, " ")),
        ("duplicate_action", lambda: builder.action_target(1, "a</action><action>b")),
        ("thought", lambda: builder.action_target(1, "a", "x</think>")),
        ("at least one value", lambda: builder.reflection_target([])),
        ("duplicate_progress", lambda: PromptBuilder(COMPACT).action_target(1, "p4 up")),
    ):
        with pytest.raises(ConfigError, match=match):
            call()


def test_full_act_prompt() -> None:
    prompt = act_prompt(PromptBuilder(FULL))
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
    assert "seen" not in act_prompt(PromptBuilder(FULL, history=0))
    assert "seen" not in act_prompt(PromptBuilder(FULL), step=1)
    plain = act_prompt(PromptBuilder(PLAIN))
    assert "progress" not in plain
    assert "think" not in plain
    assert "Possible actions" not in act_prompt(PromptBuilder(PLAIN), admissible=[])


def test_the_report_is_asked_for_where_it_is_read() -> None:
    early, late = act_prompt(PromptBuilder(FULL)), act_prompt(PromptBuilder(LATE))
    assert "<think>...</think><progress>40</progress><action>...</action>\n" in early
    assert "<think>...</think><action>...</action><progress>40</progress>\n" in late
    assert early.index("2. Say how far") < early.index("3. Give exactly one action")
    assert late.index("2. Give exactly one action") < late.index("3. Say how far")


def test_the_example_of_the_form_holds_the_environments_own_action() -> None:
    """Qwen2.5-Coder-0.5B answers '<search>...' to three dots, and in the form to an action."""
    assert act_prompt(PromptBuilder(PLAIN), example="go north").count("<action>go north</action>") == 1


@pytest.mark.parametrize("fmt", [FULL, THINK, NO_THINK, PLAIN, LATE])
def test_the_static_part_comes_first(fmt: TextFormat) -> None:
    builder = PromptBuilder(fmt)
    prompts = [act_prompt(builder, step) for step in (1, 2, 3, 9)]
    same = [len(set(letters)) == 1 for letters in zip(*prompts, strict=False)]
    prefix = prompts[0][: same.index(False)]
    assert prefix.startswith("You push boxes.")
    assert "<action>...</action>" in prefix
    assert "Your task: Put the box on the target." in prefix


def test_full_reflect() -> None:
    won = reflect_prompt(PromptBuilder(FULL))
    assert won.startswith("You push boxes.")
    assert (
        "observation: start\nhere\n[Step 1] Action: up\n[Step 1] Result: moved\nup\n[Step 2] Action: none"
        in won
    )
    assert "the attempt succeeded.\nNow give the 2 values, step 1 to step 2; the last is 100." in won
    lost = reflect_prompt(PromptBuilder(FULL), won=False, score=0.25)
    assert "the attempt failed, with a score of 0.25" in lost
    assert "all below 100." in lost
    assert "score" not in reflect_prompt(PromptBuilder(FULL), won=False, score=0.0)
    assert won.count("Fit the values in between to the length of the attempt") == 1
    assert "First reason inside <think> and </think>. Then give\none line" in reflect_prompt(
        PromptBuilder(THINK)
    )
    assert "How to answer:\nGive\none line" in reflect_prompt(PromptBuilder(PLAIN))


def test_compact_prompts_are_one_line() -> None:
    builder = PromptBuilder(COMPACT)
    assert builder.history == 0
    assert act_prompt(builder) == "view 4 progress"
    assert act_prompt(PromptBuilder(COMPACT_PLAIN)) == "view 4 act"
    assert reflect_prompt(builder) == "reflect won start here up box far t1 none box near t2 judge"
    assert (
        reflect_prompt(builder, won=False) == "reflect lost start here up box far t1 none box near t2 judge"
    )


def test_compact_words_cover_templates_and_targets() -> None:
    builder = PromptBuilder(COMPACT, resolution=10)
    words = builder.words(3)
    assert {"p0", "p10", "p100", "t1", "t3"} <= words
    assert not {"p5", "t0", "t4"} & words
    env = {"view", "4", "start", "here", "up", "box", "far", "near"}
    texts = [
        act_prompt(builder),
        act_prompt(PromptBuilder(COMPACT_PLAIN)),
        reflect_prompt(builder),
        reflect_prompt(builder, won=False),
    ]
    texts += [builder.action_target(44, "up"), builder.reflection_target([3, 55, 99])]
    assert {word for text in texts for word in text.split()} <= words | env
    with pytest.raises(ConfigError, match=r"Set prompt\.style=compact, or give policy\.model"):
        PromptBuilder(FULL).words(3)


def test_templates_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = PromptBuilder(COMPACT)
    first = act_prompt(builder)

    def compile_again(*arguments: object, **named: object) -> None:
        raise AssertionError("a template was compiled again")

    monkeypatch.setattr(jinja2.Environment, "compile", compile_again)
    assert act_prompt(builder) == first
    reflect_prompt(builder)
    calls = count_calls(lambda: act_prompt(builder))
    assert calls < 500  # 60; a compilation makes thousands


def test_own_templates(tmp_path: Path) -> None:
    (tmp_path / "forward.jinja").write_text("{{ goal }}!{{ history | length }}")
    builder = PromptBuilder(FULL, history=1, template_dir=tmp_path)
    assert act_prompt(builder) == "Put the box on the target.!1"
    assert reflect_prompt(builder) == reflect_prompt(PromptBuilder(FULL))  # not replaced


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
        reflect_prompt(builder)


def test_bad_settings() -> None:
    for match, call in (
        (r"prompt\.style.*did you mean 'compact'", lambda: TextFormat("compct")),  # type: ignore[arg-type]
        (r"prompt\.think", lambda: TextFormat("full", True, "yes")),  # type: ignore[arg-type]
        (r"prompt\.history", lambda: PromptBuilder(FULL, history=-1)),
        (r"prompt\.resolution", lambda: PromptBuilder(FULL, resolution=7)),
        (r"prompt\.resolution", lambda: PromptBuilder(FULL, resolution=100)),
    ):
        with pytest.raises(ConfigError, match=match):
            call()


# --- demonstrations


def demo(*progress: int | None) -> DemoEpisode:
    steps = [DemoStep(t, f"view\n{t}", "go  up", f"seen\n{t}", value) for t, value in enumerate(progress, 1)]
    return DemoEpisode("a\ngoal", "start\nhere", tuple(steps))


def test_compact_demonstrations() -> None:
    builder = PromptBuilder(COMPACT, resolution=10)
    assert builder.demonstrations([]) == ""
    text = builder.demonstrations([demo(44, 100)])
    assert text == "demo start here go up seen 1 p40 go up seen 2 p100 now"
    assert builder.demonstrations([demo(None)]) == "demo start here go up seen 1 now"
    assert act_prompt(builder, demonstrations=text) == f"{text} view 4 progress"
    words = builder.words(2, demonstrations=True)
    assert set(text.split()) - {"start", "here", "go", "up", "seen", "1", "2"} <= words
    assert not {"demo", "now"} & builder.words(2)


def test_full_demonstrations() -> None:
    builder = PromptBuilder(FULL)
    one = builder.demonstrations([demo(44, 100)])
    assert one.startswith("Before your task, an example: ")
    assert "[Example 1] Task: a\ngoal\n" in one
    assert (
        "[Example 1, step 2] Observation:\nview\n2\n[Example 1, step 2] Answer: <action>go  up</action>\n"
        in one
    )
    assert "[Example 1, step 1] Progress: 44\n" in one
    assert one.endswith("The example ends here.")
    two = builder.demonstrations([demo(None), demo(None)])
    assert two.startswith("Before your task, 2 examples: ")
    assert "how far that task had come" not in two
    assert "Progress:" not in two
    prompt = act_prompt(builder, demonstrations=two)
    assert prompt.index("How to answer") < prompt.index(two) < prompt.index("Your task:")


def test_a_template_that_leaves_out_the_demonstrations_is_named(tmp_path: Path) -> None:
    (tmp_path / "forward.jinja").write_text("{{ observation }}")
    builder = PromptBuilder(FULL, template_dir=tmp_path)
    assert act_prompt(builder) == "view\n4"
    with pytest.raises(ConfigError, match=r"forward\.jinja leaves out the demonstrations"):
        act_prompt(builder, demonstrations="some")


def test_only_shipped_compact_templates_leave_out_the_admissible_actions(tmp_path: Path) -> None:
    (tmp_path / "forward.jinja").write_text("{{ admissible | join(',') }}")
    assert PromptBuilder(FULL).shows_admissible
    assert not PromptBuilder(COMPACT).shows_admissible
    own = PromptBuilder(COMPACT, template_dir=tmp_path)
    assert own.shows_admissible
    assert act_prompt(own) == "up,down"


def test_the_admissible_actions_can_be_left_out(tmp_path: Path) -> None:
    tagged = act_prompt(PromptBuilder(FULL, tagged=True))
    assert "Possible actions:\n- <action>up</action>\n- <action>down</action>\n" in tagged
    plain = act_prompt(PromptBuilder(FULL))
    assert tagged.replace("- <action>up</action>\n- <action>down</action>", "- up\n- down") == plain
    assert act_prompt(PromptBuilder(COMPACT, tagged=True)) == act_prompt(PromptBuilder(COMPACT))
    listed, without = PromptBuilder(FULL), PromptBuilder(FULL, admissible=False)
    assert "\nPossible actions:\n- up\n- down\n" in act_prompt(listed)
    assert act_prompt(without) == act_prompt(listed).replace("\nPossible actions:\n- up\n- down\n", "")
    assert not without.shows_admissible
    assert act_prompt(PromptBuilder(COMPACT, admissible=False)) == act_prompt(PromptBuilder(COMPACT))
    (tmp_path / "forward.jinja").write_text("{{ observation }}{{ admissible | join(',') }}")
    own = PromptBuilder(COMPACT, template_dir=tmp_path, admissible=False)
    assert not own.shows_admissible
    assert act_prompt(own) == "view 4"
