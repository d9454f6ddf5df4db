"""The pilot study: what its prompts look like, what they never show, and the whole command in miniature."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from api_server import Server
from command import run_command
from repro_rl.config import load_config
from repro_rl.demos import save_demos
from repro_rl.demos.incontext import NONE, WHOLE, Shelf, mode_labels
from repro_rl.errors import ConfigError, DataError
from repro_rl.policy import TransformersPolicy, build_tiny
from repro_rl.policy.base import SamplingSettings
from repro_rl.report.pilot import headline, tables
from repro_rl.rollout.fit import fitting_prompt
from repro_rl.rollout.forward import EnvPool, Job, run_episodes
from repro_rl.study.pilot import (
    CONDITIONS,
    find_conditions,
    seed_config,
    split_taught,
    taught_modes,
    warm_start_settings,
)
from repro_rl.study.pilot_results import pairs, spread
from repro_rl.text import PromptBuilder, ShownEpisode, ShownStep, TextFormat
from repro_rl.train.build import tiny_words
from repro_rl.types import Completion, Reflection, Step, Trajectory

COMPACT = PromptBuilder(TextFormat("compact", progress=False, think="off"), resolution=10)
FULL = PromptBuilder(TextFormat("full", progress=False, think="off"))
NOTHING = Completion((), (), np.zeros(0, np.float32), "", True)


def expert(name: str, values: tuple[int, ...] | None, *, won: bool = True, seen: str = "") -> Trajectory:
    """An episode of two steps in the task ``name``; ``values``: its labels."""
    steps = [
        Step(
            t=t,
            observation=f"{seen or name}-see{t}",
            brief=f"{name}-brief{t}",
            anchor=t,
            prompt="",
            completion=NOTHING,
            action=f"go {t}",
            online=None,
            defects=(),
            valid=True,
            env_reward=0.0,
            truth=None,
        )
        for t in (1, 2)
    ]
    reflection = Reflection("", NOTHING, values, () if values else ("unlabelled",))
    return Trajectory(name, 0, "reach it", steps, won, 1.0, False, reflection=reflection)


def shelf_of(labels: str = "retrospective", count: int = 2, size: int = 6, **more: object) -> Shelf:
    return Shelf([expert(f"task{i}", (40, 100)) for i in range(size)], labels, count=count, **more)  # type: ignore[arg-type]


# Prompts, by hand ---------------------------------------------------------------------------------


def test_a_compact_prompt_shows_demonstrations_on_its_one_line() -> None:
    shown = ShownEpisode(
        "g", "at:a\nbox:b", (ShownStep(1, "x", "up", "at:c", 47), ShownStep(2, "y", "", "at:d", 100))
    )
    block = COMPACT.demonstrations([shown])
    assert block == "demo at:a box:b up at:c p50 none at:d p100 now"
    prompt = COMPACT.forward(
        instructions="", goal="", observation="at:e", admissible=[], history=[], step=1, max_steps=9,
        demonstrations=block,
    )  # fmt: skip
    assert prompt == f"{block} at:e act"
    assert set(block.split()) - {"at:a", "box:b", "up", "at:c", "at:d"} <= COMPACT.words(
        9, demonstrations=True
    )


def test_a_full_prompt_shows_them_between_the_rules_and_the_task() -> None:
    steps = (ShownStep(1, "a door", "open", "a hall", 30), ShownStep(2, "a hall", "enter", "inside", 100))
    block = FULL.demonstrations([ShownEpisode("get in", "a door", steps)])
    assert block == (
        "Before your task, an example: a finished and successful attempt at another task of this kind.\n"
        "After every step stands how far that task had come by then, judged when the attempt was over, from "
        "0 (nothing achieved) to 100 (finished).\n\n"
        "[Example 1] Task: get in\n"
        "[Example 1, step 1] Observation:\na door\n"
        "[Example 1, step 1] Action: open\n"
        "[Example 1, step 1] Progress: 30\n"
        "[Example 1, step 2] Observation:\na hall\n"
        "[Example 1, step 2] Action: enter\n"
        "[Example 1, step 2] Progress: 100\n\n"
        "The example ends here."
    )
    rest = {
        "instructions": "RULES", "goal": "GOAL", "observation": "O", "admissible": [], "history": [],
        "step": 1, "max_steps": 9,
    }  # fmt: skip
    bare = FULL.forward(**rest)  # type: ignore[arg-type]
    prompt = FULL.forward(**rest, demonstrations=block)  # type: ignore[arg-type]
    assert prompt.replace(f"{block}\n\n", "") == bare  # nothing else changes
    assert prompt.index("RULES") < prompt.index("Example 1") < prompt.index("Your task: GOAL")


def test_prompts_without_progress_hold_no_number_and_no_word_of_it() -> None:
    steps = (ShownStep(1, "a door", "open", "inside", None),)
    for prompts in (FULL, COMPACT):
        block = prompts.demonstrations([ShownEpisode("get in", "a door", steps)] * 2)
        assert "rogress" not in block
        assert "p1" not in block.split()
    assert FULL.demonstrations([]) == COMPACT.demonstrations([]) == ""


def test_a_template_that_leaves_demonstrations_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "forward.jinja").write_text("{{ observation }} act")
    prompts = PromptBuilder(COMPACT.fmt, template_dir=tmp_path)
    rest = {"instructions": "", "goal": "", "observation": "o", "admissible": [], "history": []}
    assert prompts.forward(**rest, step=1, max_steps=2) == "o act"  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leaves out the demonstrations"):
        prompts.forward(**rest, step=1, max_steps=2, demonstrations="demo a now")  # type: ignore[arg-type]


def test_demonstrations_have_a_template_of_their_own_that_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "demos.jinja").write_text("{{ episodes | length }} shown, judged {{ judged }}")
    prompts = PromptBuilder(COMPACT.fmt, template_dir=tmp_path)
    assert shelf_of().blocks(prompts, "t", "g", "o")[0].text == "2 shown, judged True"


# Which demonstrations -----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["plain", "random", "retrospective"])
def test_the_evaluated_task_is_never_shown_not_even_under_another_name(labels: str) -> None:
    experts = [expert(f"task{i}", (40, 100)) for i in range(4)] + [expert("alias", (1, 100), seen="task0")]
    shelf = Shelf(experts, labels, count=3)  # type: ignore[arg-type]
    for own in experts:
        chosen = shelf.choose(own.task_id, own.goal, own.steps[0].observation)
        firsts = {t.steps[0].observation for t in chosen}
        assert own.task_id not in {t.task_id for t in chosen}
        assert own.steps[0].observation not in firsts
        assert len(chosen) == 3
        for block in shelf.blocks(COMPACT, own.task_id, own.goal, own.steps[0].observation):
            assert own.steps[0].observation not in block.text


def test_the_choice_depends_on_seed_and_task_only() -> None:
    def names(shelf: Shelf, task: str) -> list[str]:
        return [t.task_id for t in shelf.choose(task, "g", "o")]

    first = [names(shelf_of(size=20), f"x{i}") for i in range(10)]
    assert first == [names(shelf_of("random", size=20), f"x{i}") for i in range(10)]
    backwards = Shelf([expert(f"task{i}", (40, 100)) for i in reversed(range(20))], "plain", count=2)
    assert first == [names(backwards, f"x{i}") for i in range(10)]
    assert first != [names(shelf_of(size=20, seed=1), f"x{i}") for i in range(10)]
    assert len({tuple(pair) for pair in first}) > 5


def test_the_same_type_of_task_comes_first() -> None:
    def kind(task: str) -> str:
        return "odd" if int(task[4:]) % 2 else "even"

    shelf = shelf_of(count=3, size=6, task_type=kind)
    for task in ("task10", "task11"):
        kinds = [kind(t.task_id) for t in shelf.choose(task, "g", "o")]
        assert kinds == [kind(task)] * 3
    four = [kind(t.task_id) for t in shelf_of(count=4, size=6, task_type=kind).choose("task10", "g", "o")]
    assert four == ["even", "even", "even", "odd"]


def test_only_solved_and_labelled_episodes_are_shown() -> None:
    bad = [expert("lost", (1, 2), won=False), expert("unlabelled", None)]
    good = [expert(f"task{i}", (40, 100)) for i in range(3)]
    shelf = Shelf([*bad, *good], "plain", count=2)
    shown = {t.task_id for i in range(30) for t in shelf.choose(f"x{i}", "g", "o")}
    assert shown == {"task0", "task1", "task2"}
    with pytest.raises(DataError, match=r"at least 3 solved and labelled.*there are 2"):
        Shelf([*bad, *good[:2]], "plain", count=2)


def test_the_kinds_of_demonstrations_differ_in_their_numbers_alone() -> None:
    texts = {kind: shelf_of(kind).blocks(FULL, "t", "g", "o")[0].text for kind in ("random", "retrospective")}
    lines = {kind: text.splitlines() for kind, text in texts.items()}
    different = [(a, b) for a, b in zip(lines["random"], lines["retrospective"], strict=True) if a != b]
    assert different
    assert all("Progress: " in line for pair in different for line in pair)
    plain = shelf_of("plain").blocks(FULL, "t", "g", "o")[0].text
    kept = [line for line in lines["random"] if "Progress: " not in line and "how far that" not in line]
    assert kept == plain.splitlines()
    shelf = shelf_of("random")
    assert shelf.progress(shelf.experts[0], "t") == shelf_of("random").progress(shelf.experts[0], "t")
    drawn = [v for i in range(200) for v in shelf.progress(shelf.experts[0], f"x{i}") if v is not None]
    assert 0 <= min(drawn) < 5
    assert 95 < max(drawn) <= 100
    assert 45 < sum(drawn) / len(drawn) < 55
    assert [mode_labels(item.mode) for item in CONDITIONS] == [None, None, "plain", "random", "retrospective"]


# How much room ------------------------------------------------------------------------------------


class Letters:
    """A policy whose tokens are letters."""

    def encode(self, prompt: str) -> tuple[int, ...]:
        return tuple(map(ord, prompt))


def test_what_does_not_fit_is_shortened_by_rule_and_counted() -> None:
    long = expert("long", (40, 100))
    long.steps[0].observation = "x" * 1000
    long.steps[0].brief = "y" * 200
    shelf = Shelf([long, expert("b", (1, 100)), expert("c", (1, 100))], "plain", count=2)
    task = next(f"t{i}" for i in range(99) if shelf.choose(f"t{i}", "g", "o")[0].task_id == "long")
    blocks = shelf.blocks(FULL, task, "g", "o")
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
    rest = {
        "instructions": "", "goal": "g", "observation": "o", "admissible": [], "step": 2, "max_steps": 9,
    }  # fmt: skip
    history = [("before", "go")]
    bare = len(FULL.forward(**rest, history=history))  # type: ignore[arg-type]
    for index, block in enumerate(blocks[:-1]):
        shown = [b.text for b in blocks]
        prompt = fitting_prompt(Letters(), FULL, bare + len(block.text) + 3, shown, history, **rest)  # type: ignore[arg-type]
        assert prompt is not None
        assert block.text in prompt.text
        assert "before" in prompt.text
        assert shown == [b.text for b in blocks[index:]]  # what was given up stays given up
        episode = expert(task, None)
        episode.goal, episode.steps[0].observation = "g", "o"
        for step in episode.steps:
            step.prompt = prompt.text
        assert shelf.census([episode], FULL) == {block.name: 2}
    shown = [b.text for b in blocks]
    prompt = fitting_prompt(Letters(), FULL, bare - 1, shown, history, **rest)  # type: ignore[arg-type]
    assert prompt is not None
    assert shown == [""]
    assert "before" not in prompt.text
    assert fitting_prompt(Letters(), FULL, 10, shown, history, **rest) is None  # type: ignore[arg-type]


def test_compact_demonstrations_are_never_cut_within_a_word() -> None:
    names = [block.name for block in shelf_of(count=3).blocks(COMPACT, "t", "g", "o")]
    assert names == [WHOLE, "2 of 3", "1 of 3", NONE]


def test_episodes_show_the_demonstrations_of_their_own_task(tmp_path: Path) -> None:
    config = load_config("sokoban-tiny", ["warmup.forward_modes=[demos-plain]"])
    pool = EnvPool("sokoban", config.env.settings)
    words = {*tiny_words(config, pool.first), "X", "Y"}
    policy = TransformersPolicy.load(build_tiny(tmp_path / "m", words))
    tasks = pool.first.panel("test").ids[:2]
    asked: list[tuple[str, str, str]] = []

    def texts(*task: str) -> list[str]:
        asked.append(task)  # type: ignore[arg-type]
        return [f"demo {'X' if task[0] == tasks[0] else 'Y'} now", ""]

    done = run_episodes(
        pool,
        [Job(task, 0) for task in tasks],
        policy,
        COMPACT,
        SamplingSettings(max_new_tokens=2),
        stream=0,
        demonstrations=texts,
    )
    assert [task[0] for task in asked] == list(tasks)
    for trajectory, (_, goal, first), letter in zip(done, asked, "XY", strict=True):
        assert (trajectory.goal, trajectory.steps[0].observation) == (goal, first)
        assert all(step.prompt.startswith(f"demo {letter} now at:") for step in trajectory.steps)


# What a model was taught --------------------------------------------------------------------------


def test_a_tiny_model_meets_only_prompts_it_was_taught(tmp_path: Path) -> None:
    for name, text in (
        ("warm", "warmup: {forward_modes: [action, demos-plain]}"),
        ("plain", "warmup: {}"),
        ("run", f"train: {{init: {tmp_path / 'warm' / 'model'}}}"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    assert taught_modes(tmp_path / "warm" / "model") == {"action", "demos-plain"}
    assert taught_modes(tmp_path / "run" / "checkpoints" / "00010") == {"action", "demos-plain"}
    assert taught_modes(tmp_path / "plain") == {"action", "progress"}
    assert taught_modes("api:m") is None
    assert taught_modes("Qwen/Qwen3-0.6B") is None
    tiny, large = load_config("sokoban-tiny"), load_config("sokoban-qwen3")
    taught = frozenset({"action", "progress"})
    played, left_out, remarks = split_taught(tiny, CONDITIONS, taught)
    assert [item.name for item in played] == ["base", "meta"]
    assert set(left_out) == {"plain", "random", "retrospective"}
    assert not remarks
    assert "demos-random" in left_out["random"]
    played, left_out, remarks = split_taught(large, CONDITIONS, taught)
    assert len(played) == 5
    assert not left_out
    assert len(remarks) == 3
    assert split_taught(large, CONDITIONS, None) == (list(CONDITIONS), {}, [])


def test_warm_starts_teach_every_prompt_as_much_as_the_recipe_does() -> None:
    more = warm_start_settings(load_config("sokoban-tiny"), CONDITIONS)  # 32 rows for two kinds of prompt
    section = load_config("sokoban-tiny", more).warmup
    assert section.forward_modes == tuple(item.mode for item in CONDITIONS)
    assert section.forward_batch == 80
    assert section.target_success is None


def test_default_models_keep_their_words() -> None:
    """A word more would change every tiny model that was ever trained."""
    env = EnvPool("sokoban", {"style": "relative"}).first
    default = tiny_words(load_config("sokoban-tiny"), env)
    taught = load_config("sokoban-tiny", ["warmup.forward_modes=[action, demos-plain]"])
    assert tiny_words(taught, env) - default == {"demo", "now"}


# Statistics ---------------------------------------------------------------------------------------


def test_intervals_are_over_tasks_or_over_both() -> None:
    one = spread(np.array([[0.0, 1.0] * 50]))
    assert one is not None
    assert 0.38 < one[0] < 0.42
    assert 0.58 < one[1] < 0.62
    two = spread(np.array([[0.0, 1.0] * 50, [1.0, 1.0] * 50]))
    assert two is not None
    assert two[0] < 0.55
    assert two[1] > 0.9
    assert spread(np.zeros((1, 9))) is None
    assert pairs(["base", "meta", "random", "retrospective"]) == [
        *(("meta", "base"), ("random", "base"), ("retrospective", "base")),
        *(("retrospective", "meta"), ("retrospective", "random")),
    ]


def test_an_unknown_condition_is_named() -> None:
    with pytest.raises(ConfigError, match=r"retrospectiv'.*retrospective"):
        find_conditions(["base", "retrospectiv"])
    assert [item.name for item in find_conditions(["meta", "base"])] == ["base", "meta"]
    assert seed_config(load_config(None), 2).eval.seed == load_config(None).eval.seed + 2


# The command --------------------------------------------------------------------------------------

MINI = [
    "env.settings.max_steps=6",
    "env.settings.solution=[3, 5]",
    "policy.tiny={hidden: 32, heads: 2, kv_heads: 2, ffn: 64, positions: 512}",
    "demos.expert=6",
    "demos.winning=4",
    "demos.failing=4",
    "warmup.updates=4",
    "warmup.forward_from=0",
    "warmup.forward_batch=10",
    "warmup.reflect_batch=4",
    "eval.tasks=6",
]


def pilot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit status and everything printed, with white space collapsed."""
    monkeypatch.setenv("COLUMNS", "200")
    code, out = run_command(capsys, monkeypatch, "pilot", *arguments)
    return code, " ".join(out.split())


def records(folder: Path, name: str) -> list[dict[str, object]]:
    with gzip.open(folder / "trajectories" / f"eval-{name}.jsonl.gz", "rt") as handle:
        return [json.loads(line) for line in handle]


def test_the_whole_pilot_in_miniature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pilot"
    code, said = pilot(capsys, monkeypatch, "-o", str(out), "--seeds", "0,1", *MINI)
    assert code == 0, said
    data = json.loads((out / "pilot.json").read_text())
    assert [row["name"] for row in data["conditions"]] == [item.name for item in CONDITIONS]
    assert all(row["seeds"] == [0, 1] for row in data["conditions"])
    assert data["panel"].startswith("sokoban/test[6]@")
    assert data["digest"]
    asked = {(pair["one"], pair["other"]) for pair in data["differences"]}
    assert {("retrospective", "meta"), ("retrospective", "random"), ("meta", "base")} <= asked
    first = {item.name: records(out / "seed0", item.name) for item in CONDITIONS}
    tasks = [row["task_id"] for row in first["base"]]
    for name, rows in first.items():
        assert [row["task_id"] for row in rows] == tasks  # one panel
        prompts = [step["prompt"] for row in rows for step in row["steps"]]  # type: ignore[attr-defined]
        assert all(p.endswith("progress" if name == "meta" else "act") for p in prompts)
        assert all(p.startswith("demo ") == (name in ("plain", "random", "retrospective")) for p in prompts)
        assert all(p.count("demo ") in (0, 2) for p in prompts)
        if name in ("random", "retrospective"):
            assert all(" p100 now " in p for p in prompts) == (name == "retrospective")
    shown = next(row for row in data["conditions"] if row["name"] == "random")["demonstrations"]
    assert set(shown) == {WHOLE}
    page = (out / "pilot.html").read_text()
    assert "<script" not in page
    assert "Retrospective against random progress" in page
    assert "demo at:" in page  # the prompts themselves
    assert "| retrospective − random |" in (out / "pilot.md").read_text()
    # repeated, nothing is played again; other settings are refused; a seed may be added, a condition left out
    before = {path: path.stat().st_mtime_ns for path in out.glob("seed*/eval/*.json")}
    code, said = pilot(capsys, monkeypatch, "-o", str(out), "--seeds", "0,1", *MINI)
    assert code == 0
    assert said.count("played before") == 10
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("seed*/eval/*.json")}
    code, said = pilot(capsys, monkeypatch, "-o", str(out), *MINI, "eval.temperature=0")
    assert code == 2
    assert "eval.temperature: 0.4 there, 0.0 now" in said
    # the warm start as a given model gives the same episodes as where it was trained: same seed, same demos
    given = ["--model", str(out / "seed0" / "warmup"), "--demos", str(out / "seed0" / "demos"), "-o"]
    code, said = pilot(capsys, monkeypatch, *given, str(tmp_path / "given"), "eval.seed=1234")
    assert code == 0, said
    for name, rows in first.items():
        assert records(tmp_path / "given" / "seed0", name) == rows
    # another model of the same name and settings does not continue it
    shutil.copytree(out / "seed0" / "warmup", tmp_path / "other" / "warmup")
    shutil.copytree(
        out / "seed1" / "warmup" / "model", tmp_path / "other" / "warmup" / "model", dirs_exist_ok=True
    )
    given[1] = str(tmp_path / "other" / "warmup")
    code, said = pilot(capsys, monkeypatch, *given, str(tmp_path / "given"), "eval.seed=1234")
    assert code == 2
    assert "holds a pilot of warmup (model)" in said


def test_conditions_that_a_tiny_model_was_not_taught_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pilot"
    mini = [*MINI, "warmup.updates=1"]
    code, said = pilot(capsys, monkeypatch, "-o", str(out), "--conditions", "base,meta", *mini)
    assert code == 0, said
    code, said = pilot(
        capsys,
        monkeypatch,
        "--model",
        str(out / "seed0" / "warmup"),
        "-o",
        str(tmp_path / "b"),
        "eval.tasks=3",
    )
    assert code == 0, said
    assert "random: not played: the model's warmup did not teach this prompt (demos-random)" in said
    data = json.loads((tmp_path / "b" / "pilot.json").read_text())
    assert {row["name"] for row in data["conditions"] if row["seeds"]} == {"base", "meta"}
    assert any("did not teach" in cell for row in tables(data)[0].rows for cell in row)
    assert len(headline(data)) == 1


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_an_api_model_plays_all_conditions_in_full_style(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        *("-c", "sokoban-qwen3", "--model", "api:m", "-o", str(tmp_path / "pilot")),
        *(
            f"api.base_url={server.url}",
            f"api.cache={tmp_path / 'cache'}",
            "env.settings.max_steps=5",
            "env.settings.solution=[3, 5]",
        ),
        *("demos.expert=5", "eval.tasks=3"),
    ]
    code, said = pilot(capsys, monkeypatch, *settings)
    assert code == 0, said
    data = json.loads((tmp_path / "pilot" / "pilot.json").read_text())
    assert data["agent"] == "api:m"
    assert all(row["seeds"] == [0] for row in data["conditions"])
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    asked = {
        "meta": "Say how far the task will be done",
        "demonstrations": "2 examples: finished and successful attempts",
        "judged": "[Example 2, step 1] Progress: ",
    }
    counts = {name: sum(text in p for p in prompts) for name, text in asked.items()}
    assert 0 < counts["meta"] <= 15
    assert 0 < counts["judged"] < counts["demonstrations"]
    assert not any(asked["meta"] in p and asked["demonstrations"] in p for p in prompts)
    assert "sk-" not in (tmp_path / "pilot" / "pilot.json").read_text()
    calls = server.calls
    code, said = pilot(capsys, monkeypatch, *settings)
    assert code == 0
    assert server.calls == calls
    assert said.count("played before") == 5


def test_demonstrations_of_another_environment_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_demos(tmp_path / "demos", [expert("a", (1, 100))], [])
    (tmp_path / "demos" / "demos.json").write_text(
        json.dumps({"settings": {"env": {"name": "webshop", "settings": {}}}})
    )
    code, said = pilot(
        capsys, monkeypatch, "--demos", str(tmp_path / "demos"), "-o", str(tmp_path / "p"), *MINI
    )
    assert code == 2
    assert "holds demonstrations of" in said
