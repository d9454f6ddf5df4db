"""docs/extending.md and the pages it lists: their blocks are one module, whose parts do what they say."""

from __future__ import annotations

import inspect
import math
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

import repro_rl
from repro_rl.config import DemosSection, parse_config
from repro_rl.demos import CollectHooks, collect_demos, load_demos, save_demos
from repro_rl.envs.checker import check_env
from repro_rl.losses.functions import check_loss
from repro_rl.registry import Registry
from repro_rl.text import PromptBuilder, StepInputs, TextFormat
from repro_rl.types import Group, Status, Step, Trajectory, no_completion
from support.extending_page import (
    DOCS,
    EXTENDING,
    LEVELS,
    MODULE_PAGES,
    NEW_ENVIRONMENT,
    ROOT,
    blocks,
    page_settings,
    registries,
)

TEMPLATES = DOCS / "templates.md"
PLUGINS = DOCS / "plugins.md"


def test_the_example_environment_keeps_the_contract(my_rl):
    for split in ("train", "validation", "test"):
        env = repro_rl.make("errand")
        checks = check_env(env, split, tasks=20, factory=lambda: repro_rl.make("errand"))
        assert [check for check in checks if not check.ok] == []


def test_the_pages_are_a_module_that_checks_itself_only_when_it_is_run(tmp_path):
    """The blocks as the file ``my_rl.py``: the setting ``plugins`` imports it, and running it checks."""
    code = [text for page in MODULE_PAGES for text in blocks(page, "python")]
    (tmp_path / "my_rl.py").write_text("\n\n".join(code))
    (tmp_path / "errand.yaml").write_text(blocks(NEW_ENVIRONMENT, "yaml")[0])
    command = (
        "import repro_rl; config = repro_rl.load_config('errand.yaml', "
        "['plugins=[my_rl]', 'method=repro-to-go']); "
        "print(config.method.credit, repro_rl.make('errand').name)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])

    def output(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert output("-c", command) == "to-go errand\n", "importing the page must print nothing"
    assert {line[:4] for line in output("my_rl.py").splitlines()} == {"ok  "}


def test_the_blocks_of_a_page_need_no_other_page(tmp_path):
    """But for the check of the example environment. In a process of its own: here names are taken."""
    files = []
    for page in MODULE_PAGES:
        files.append(tmp_path / f"{page.stem}.py")
        files[-1].write_text("\n\n".join(blocks(page, "python")))
    code = "import runpy, sys; [runpy.run_path(name) for name in sys.argv[1:]]"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code, *map(str, files)], check=True, env=env)


def test_the_pages_are_listed_in_the_order_of_the_module():
    listed = re.findall(r"\]\(([\w-]+\.md)\)", EXTENDING.read_text())
    pages = [page.name for page in MODULE_PAGES]
    assert [name for name in dict.fromkeys(listed) if name in pages] == pages


def test_the_example_vocabulary_is_complete(my_rl):
    env = repro_rl.make("errand", rooms=4, max_steps=12)
    vocabulary = set(env.vocabulary())
    for task in env.panel("train"):
        observation, info = env.reset(options={"task": task})
        for action in ("open", "left", "right", "take", "right", "right", "take", "left", "open"):
            words = f"{observation} {info['brief']} {' '.join(info['admissible'])}".split()
            assert set(words) <= vocabulary
            observation, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break


def test_the_example_names_are_found_by_entry_point(my_rl, tmp_path, monkeypatch):
    """The page's pyproject.toml, as an installed package: fresh registries find what it announces."""
    announced = tomllib.loads(blocks(PLUGINS, "toml")[0])["project"]
    lines = []
    for group, points in announced["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    folder = tmp_path / "my_rl-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rl\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    groups = {registry.group: registry for registry in registries()}
    assert set(announced["entry-points"]) == set(groups)
    for group, points in announced["entry-points"].items():
        fresh: Registry[Any] = Registry("example", group=group, record=groups[group].record)
        for name in points:
            assert fresh.get(name) == groups[group].get(name), "entry point and decorator must agree"


def test_the_example_settings_are_valid(my_rl):
    for page in (NEW_ENVIRONMENT, LEVELS):
        config = parse_config(yaml.safe_load(blocks(page, "yaml")[0]))
        if config.env.name == "errand":
            env = repro_rl.make("errand", **config.env.settings)
            assert len(env.panel(config.eval.split)) >= config.eval.tasks
            assert len(env.panel(config.eval.validation_split)) >= config.eval.validation_tasks
            assert config.prompt.reflect_new_tokens >= 2 * env.max_steps + 1
    assert parse_config({"method": "repro-to-go"}).method.credit == "to-go"


def test_the_example_source_of_progress_pays_its_gains(my_rl):
    from repro_rl.credit import RewardSettings, composite_rewards

    steps = [
        Step(t, "o", "b", "a", "p", no_completion(), "x", None, (), valid, 0.0, None)
        for t, valid in enumerate((True, False, True, True), 1)
    ]
    trajectory = Trajectory("task", 0, "goal", steps, won=False, score=0.0, status=Status.TRUNCATED)
    rows = composite_rewards(trajectory, RewardSettings(progress=False, shaping="valid-steps", beta=3.0))
    assert [row["shaping"] for row in rows] == pytest.approx([1.0, 0.0, 1.0, 1.0])


def test_the_example_source_of_a_group_counts_against_the_shortest_win(my_rl):
    from repro_rl.credit import RewardSettings
    from repro_rl.credit.sources import group_series

    def played(length: int, won: bool) -> Trajectory:
        steps = [
            Step(t, "o", "b", "a", "p", no_completion(), "x", None, (), True, 0.0, None)
            for t in range(1, length + 1)
        ]
        status = Status.TERMINATED if won else Status.TRUNCATED
        return Trajectory("task", 0, "goal", steps, won=won, score=float(won), status=status)

    settings = RewardSettings(shaping="by-shortest")
    group = Group("task", [played(2, True), played(3, True), played(1, False)])
    assert group_series(group, "by-shortest", settings) == [[0, 0.5, 1], [0, 0.5, 1, 1], [0, 0.5]]
    assert group_series(Group("task", [played(1, False)]), "by-shortest", settings) == [None]


def test_the_example_credit_rule_by_hand(my_rl):
    from repro_rl.credit import CreditSettings

    rows = my_rl.to_go([[0.0, 8.0], [0.0]], ["a", "a"], [["x", "y"], ["x"]], CreditSettings(gamma=0.5), None)
    assert rows == [[0.0, 4.0], [-4.0]]  # returns to go 4, 8 and 0; their mean is 4


def test_the_example_loss_by_hand(my_rl):
    """Ratios 2 and 1: the first is bounded by 1.2; the negative advantage counts by a third."""
    check_loss(parse_config({"train": {"loss": {"name": "gentle"}}}).train.loss)
    got = repro_rl.losses.evaluate(
        "gentle",
        {"negative": 1 / 3},
        log_prob=[[math.log(2.0) - 3.0, -3.0]],
        old_log_prob=[[-3.0, -3.0]],
        advantages=[[1.0, -3.0]],
    )
    assert got["gradient"] == [[pytest.approx(-1.2 / 2), pytest.approx(1.0 / 2)]]


def test_the_example_template_renders(tmp_path):
    (tmp_path / "forward.jinja").write_text(blocks(TEMPLATES, "jinja")[0])
    prompts = PromptBuilder(TextFormat("full", progress=True, think="off"), template_dir=tmp_path)
    text = prompts.act(StepInputs("Rules.", "Goal.", "a room", ["up", "down"], 2, 9))
    assert text.splitlines()[:4] == ["Rules. Goal.", "Step 2 of 9: a room", "- up", "- down"]
    assert "<progress>" in text


def test_template_variables_are_listed():
    """Every variable that the builder gives to a template stands on the page."""
    variables = {
        "forward": [field.name for field in fields(StepInputs)],
        "reflect": [*inspect.signature(PromptBuilder.reflect).parameters][1:],
    }
    for name, names in variables.items():
        row = next(
            line for line in TEMPLATES.read_text().splitlines() if line.startswith(f"| `{name}.jinja`")
        )
        assert [v for v in names if f"`{v}`" not in row] == []


def test_the_example_levels_can_be_played(my_rl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my-levels.txt").write_text(blocks(LEVELS, "text")[0])
    config = parse_config(page_settings("levels.yaml"))
    env = repro_rl.make("sokoban", **config.env.settings)
    assert len(env.panel("all")) == config.eval.tasks == 2
    assert [check for check in check_env(env, "all") if not check.ok] == []
    assert config.prompt.reflect_new_tokens >= 2 * env.max_steps + 1
    experts, labelled = collect_demos(env, env.panel(config.demos.split).ids, config.demos, seed=0)
    assert len(experts) == config.demos.expert + config.demos.wandering_episodes == 10
    assert len(labelled) == 100


def test_the_example_demonstrations_come_back(my_rl, tmp_path):
    env = repro_rl.make("errand", rooms=5, max_steps=10)
    section = DemosSection(expert=3, winning=6, failing=6, annotator="accepted")
    save_demos(tmp_path, *collect_demos(env, env.panel("train").ids, section, seed=0))
    experts, labelled = load_demos(tmp_path)
    assert (len(experts), len(labelled)) == (3 + 1, 12)  # one wandering
    for trajectory in labelled:
        assert trajectory.reflection is not None
        values = trajectory.reflection.values
        assert values is not None
        assert (values[-1] == 100) == trajectory.won


def test_the_example_batch_annotator_labels_successes(my_rl):
    env = repro_rl.make("errand", rooms=4, max_steps=12)
    hooks = CollectHooks()
    section = DemosSection(
        expert=2,
        winning=0,
        failing=2,
        labelled_mistakes=(1.0,),
        annotator="relative",
        mistakes=(0.0,),
        wandering=0,
    )
    experts, labelled = collect_demos(env, env.panel("train").ids, section, seed=0, hooks=hooks)
    for trajectory in experts:  # the failures are the longest: 12 steps
        values = [round(100 * step.t / 12) for step in trajectory.steps]
        assert trajectory.reflection is not None
        assert trajectory.reflection.values == (*values[:-1], 100)
    assert [t.reflection and t.reflection.defects for t in labelled] == [("failure",)] * 2
    assert hooks.notes["unlabelled"] == 2
