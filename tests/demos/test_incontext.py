"""Demonstrations in prompts: how they are written, which are shown, what token limits leave of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repro_rl.config import load_config
from repro_rl.demos.incontext import NONE, WHOLE, InContextDemos, Labels, mode_labels
from repro_rl.errors import ConfigError, DataError
from repro_rl.policy import TransformersPolicy, build_tiny
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout import Actor, PlayOptions, RolloutRequest, run_episodes
from repro_rl.rollout.fit import fitting_prompt
from repro_rl.run.setup import set_up
from repro_rl.text import PromptBuilder, StepInputs, TextFormat
from repro_rl.text.prompts import DemoEpisode, DemoStep
from support.experts import expert

COMPACT = PromptBuilder(TextFormat("compact", progress=False, think="off"), resolution=10)
FULL = PromptBuilder(TextFormat("full", progress=False, think="off"))


def demos_of(
    labels: Labels = "retrospective",
    count: int = 2,
    size: int = 6,
    **more: object,
) -> InContextDemos:
    experts = [expert(f"task{i}", (40, 100)) for i in range(size)]
    return InContextDemos(experts, labels, count=count, **more)


# Prompts, by hand ---------------------------------------------------------------------------------


def test_a_compact_prompt_shows_demonstrations_on_its_one_line() -> None:
    episode = DemoEpisode(
        "g", "at:a\nbox:b", (DemoStep(1, "x", "up", "at:c", 47), DemoStep(2, "y", "", "at:d", 100))
    )
    block = COMPACT.demonstrations([episode])
    assert block == "demo at:a box:b up at:c p50 none at:d p100 now"
    prompt = COMPACT.act(StepInputs("", "", "at:e", [], 1, 9, demonstrations=block))
    assert prompt == f"{block} at:e act"
    assert set(block.split()) - {"at:a", "box:b", "up", "at:c", "at:d"} <= COMPACT.words(
        9, demonstrations=True
    )


def test_a_full_prompt_shows_them_between_the_rules_and_the_task() -> None:
    steps = (DemoStep(1, "a door", "open", "a hall", 30), DemoStep(2, "a hall", "enter", "inside", 100))
    block = FULL.demonstrations([DemoEpisode("get in", "a door", steps)])
    assert block == (
        "Before your task, an example: a finished and successful attempt at another task of this kind.\n"
        "After every step stands how far that task had come by then, judged when the attempt was over, from "
        "0 (nothing achieved) to 100 (finished).\n\n"
        "[Example 1] Task: get in\n"
        "[Example 1, step 1] Observation:\na door\n"
        "[Example 1, step 1] Answer: <action>open</action>\n"
        "[Example 1, step 1] Progress: 30\n"
        "[Example 1, step 2] Observation:\na hall\n"
        "[Example 1, step 2] Answer: <action>enter</action>\n"
        "[Example 1, step 2] Progress: 100\n\n"
        "The example ends here."
    )
    inputs = StepInputs("RULES", "GOAL", "O", [], 1, 9)
    bare = FULL.act(inputs)
    prompt = FULL.act(replace(inputs, demonstrations=block))
    assert prompt.replace(f"{block}\n\n", "") == bare  # nothing else changes
    assert prompt.index("RULES") < prompt.index("Example 1") < prompt.index("Your task: GOAL")


def test_prompts_without_progress_hold_no_number_and_no_word_of_it() -> None:
    steps = (DemoStep(1, "a door", "open", "inside", None),)
    for prompts in (FULL, COMPACT):
        block = prompts.demonstrations([DemoEpisode("get in", "a door", steps)] * 2)
        assert "rogress" not in block
        assert "p1" not in block.split()
    assert FULL.demonstrations([]) == COMPACT.demonstrations([]) == ""


def test_a_template_that_leaves_demonstrations_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "forward.jinja").write_text("{{ observation }} act")
    prompts = PromptBuilder(COMPACT.fmt, template_dir=tmp_path)
    inputs = StepInputs("", "", "o", [], 1, 2)
    assert prompts.act(inputs) == "o act"
    with pytest.raises(ConfigError, match="leaves out the demonstrations"):
        prompts.act(replace(inputs, demonstrations="demo a now"))


def test_demonstrations_have_a_template_of_their_own_that_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "demos.jinja").write_text("{{ episodes | length }} shown, judged {{ judged }}")
    prompts = PromptBuilder(COMPACT.fmt, template_dir=tmp_path)
    assert demos_of().blocks(prompts, "t", "g", "o")[0].text == "2 shown, judged True"


# Which demonstrations -----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["plain", "random", "retrospective"])
def test_the_evaluated_task_is_never_shown_not_even_under_another_name(labels: str) -> None:
    experts = [expert(f"task{i}", (40, 100)) for i in range(4)] + [expert("alias", (1, 100), seen="task0")]
    demos = InContextDemos(experts, labels, count=3)
    for own in experts:
        chosen = demos.choose(own.task_id, own.goal, own.steps[0].observation)
        firsts = {t.steps[0].observation for t in chosen}
        assert own.task_id not in {t.task_id for t in chosen}
        assert own.steps[0].observation not in firsts
        assert len(chosen) == 3
        for block in demos.blocks(COMPACT, own.task_id, own.goal, own.steps[0].observation):
            assert own.steps[0].observation not in block.text


def test_the_choice_depends_on_seed_and_task_only() -> None:
    def names(demos: InContextDemos, task: str) -> list[str]:
        return [t.task_id for t in demos.choose(task, "g", "o")]

    first = [names(demos_of(size=20), f"x{i}") for i in range(10)]
    assert first == [names(demos_of("random", size=20), f"x{i}") for i in range(10)]
    backwards = InContextDemos([expert(f"task{i}", (40, 100)) for i in reversed(range(20))], "plain", count=2)
    assert first == [names(backwards, f"x{i}") for i in range(10)]
    assert first != [names(demos_of(size=20, seed=1), f"x{i}") for i in range(10)]
    assert len({tuple(pair) for pair in first}) > 5


def test_the_same_type_of_task_comes_first() -> None:
    def kind(task: str) -> str:
        return "odd" if int(task[4:]) % 2 else "even"

    demos = demos_of(count=3, size=6, task_type=kind)
    for task in ("task10", "task11"):
        kinds = [kind(t.task_id) for t in demos.choose(task, "g", "o")]
        assert kinds == [kind(task)] * 3
    four = [kind(t.task_id) for t in demos_of(count=4, size=6, task_type=kind).choose("task10", "g", "o")]
    assert four == ["even", "even", "even", "odd"]


def test_only_solved_and_labelled_episodes_are_shown() -> None:
    bad = [expert("lost", (1, 2), won=False), expert("unlabelled", None)]
    good = [expert(f"task{i}", (40, 100)) for i in range(3)]
    demos = InContextDemos([*bad, *good], "plain", count=2)
    chosen = {t.task_id for i in range(30) for t in demos.choose(f"x{i}", "g", "o")}
    assert chosen == {"task0", "task1", "task2"}
    with pytest.raises(DataError, match=r"at least 3 solved and labelled.*there are 2"):
        InContextDemos([*bad, *good[:2]], "plain", count=2)


def test_the_kinds_of_demonstrations_differ_in_their_numbers_alone() -> None:
    texts = {kind: demos_of(kind).blocks(FULL, "t", "g", "o")[0].text for kind in ("random", "retrospective")}
    lines = {kind: text.splitlines() for kind, text in texts.items()}
    differing = [(a, b) for a, b in zip(lines["random"], lines["retrospective"], strict=True) if a != b]
    assert differing
    assert all("Progress: " in line for pair in differing for line in pair)
    plain = demos_of("plain").blocks(FULL, "t", "g", "o")[0].text
    kept = [line for line in lines["random"] if "Progress: " not in line and "how far that" not in line]
    assert kept == plain.splitlines()
    demos = demos_of("random")
    assert demos.progress(demos.experts[0], "t") == demos_of("random").progress(demos.experts[0], "t")
    drawn = [v for i in range(200) for v in demos.progress(demos.experts[0], f"x{i}") if v is not None]
    assert 0 <= min(drawn) < 5
    assert 95 < max(drawn) <= 100
    assert 45 < sum(drawn) / len(drawn) < 55
    modes = ("action", "progress", "demos-plain", "demos-random", "demos-retrospective")
    assert [mode_labels(mode) for mode in modes] == [None, None, "plain", "random", "retrospective"]


# How many tokens ------------------------------------------------------------------------------------


class Letters:
    """A text codec whose tokens are letters."""

    positions = None

    def encode(self, prompt: str) -> tuple[int, ...]:
        return tuple(map(ord, prompt))


def test_what_does_not_fit_is_shortened_by_rule_and_counted() -> None:
    long = expert("long", (40, 100))
    long.steps[0].observation = "x" * 1000
    long.steps[0].brief = "y" * 200
    demos = InContextDemos([long, expert("b", (1, 100)), expert("c", (1, 100))], "plain", count=2)
    task = next(f"t{i}" for i in range(99) if demos.choose(f"t{i}", "g", "o")[0].task_id == "long")
    blocks = demos.blocks(FULL, task, "g", "o")
    assert [block.name for block in blocks] == [
        WHOLE,
        "observations cut to 300 characters",
        "observations cut to 100 characters",
        "1 of 2, observations cut to 100 characters",
        NONE,
    ]
    assert "x" * 300 + " …" in blocks[1].text
    assert "x" * 301 not in blocks[1].text
    assert "y" * 200 in blocks[1].text
    assert "y" * 100 + " …" in blocks[2].text
    sizes = [len(block.text) for block in blocks]
    assert sizes == sorted(sizes, reverse=True)
    inputs = StepInputs("", "g", "o", [], 2, 9, history=[("before", "go")])
    bare = len(FULL.act(inputs))
    for index, block in enumerate(blocks[:-1]):
        texts = [b.text for b in blocks]
        prompt = fitting_prompt(Letters(), FULL, bare + len(block.text) + 3, texts, inputs)
        assert prompt is not None
        assert block.text in prompt.text
        assert "before" in prompt.text
        assert texts == [b.text for b in blocks[index:]]  # what was given up stays given up
        episode = expert(task, None)
        episode.goal, episode.steps[0].observation = "g", "o"
        for step in episode.steps:
            step.prompt = prompt.text
        assert demos.count_steps([episode], FULL) == {block.name: 2}
    texts = [b.text for b in blocks]
    prompt = fitting_prompt(Letters(), FULL, bare - 1, texts, inputs)
    assert prompt is not None
    assert texts == [""]
    assert "before" not in prompt.text
    assert fitting_prompt(Letters(), FULL, 10, texts, inputs) is None


def test_compact_demonstrations_are_never_cut_within_a_word() -> None:
    names = [block.name for block in demos_of(count=3).blocks(COMPACT, "t", "g", "o")]
    assert names == [WHOLE, "2 of 3", "1 of 3", NONE]


def test_episodes_show_the_demonstrations_of_their_own_task(tmp_path: Path) -> None:
    setup = set_up(load_config("sokoban-tiny", ["warmup.forward_modes=[demos-plain]"]))
    pool = setup.pool
    policy = TransformersPolicy.load(build_tiny(tmp_path / "m", {*setup.tiny_words(), "X", "Y"}))
    tasks = pool.first.panel("test").ids[:2]
    requested: list[tuple[str, ...]] = []

    def texts(*task: str) -> list[str]:
        requested.append(task)
        return [f"demo {'X' if task[0] == tasks[0] else 'Y'} now", ""]

    done = run_episodes(
        pool,
        [RolloutRequest(task, 0) for task in tasks],
        Actor(policy, COMPACT, SamplingSettings(max_new_tokens=2)),
        PlayOptions(stream=0, demonstrations=texts),
        max_prompt_tokens=2048,
    )
    assert [task[0] for task in requested] == list(tasks)
    for trajectory, (_, goal, first), letter in zip(done, requested, "XY", strict=True):
        assert (trajectory.goal, trajectory.steps[0].observation) == (goal, first)
        assert all(step.prompt.startswith(f"demo {letter} now at:") for step in trajectory.steps)
