"""The pages: their examples run, their links lead somewhere, every metric and method is named."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import repro_rl
from repro_rl.config import parse_config
from repro_rl.credit import CREDIT, SOURCES
from repro_rl.credit.reward import REFLECTION_TERMS, TERMS
from repro_rl.demos import ANNOTATORS, collect_demos, load_demos, save_demos
from repro_rl.envs.base import ENVS
from repro_rl.envs.checker import check_env
from repro_rl.files import write_json
from repro_rl.methods import METHODS
from repro_rl.registry import Registry
from repro_rl.rollout import read_trajectories
from repro_rl.text import PromptBuilder, TextFormat

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "repro_rl"
EXTENDING, METRICS, METHOD = (ROOT / "docs" / f"{name}.md" for name in ("extending", "metrics", "method"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHIPPED_METHODS = METHODS.names()  # before the examples add theirs


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


# docs/extending.md --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def my_rl() -> Iterator[ModuleType]:
    """The page's Python blocks as the module ``my_rl``; what they register is taken back at the end."""
    registries: list[Registry[Any]] = [ENVS, CREDIT, SOURCES, ANNOTATORS, METHODS]
    before = [dict(registry._items) for registry in registries]
    module = ModuleType("my_rl")
    sys.modules["my_rl"] = module
    try:
        for number, code in enumerate(blocks(EXTENDING, "python"), 1):
            exec(compile(code, f"{EXTENDING.name}, Python block {number}", "exec"), module.__dict__)
        yield module
    finally:
        del sys.modules["my_rl"]
        for registry, items in zip(registries, before, strict=True):
            registry._items.clear()
            registry._items.update(items)


def settings(my_rl: ModuleType, comment: str) -> dict[str, Any]:
    """The page's YAML file of that name."""
    return next(
        yaml.safe_load(text) for text in blocks(EXTENDING, "yaml") if text.startswith(f"# {comment}\n")
    )


def test_the_example_environment_keeps_the_contract(my_rl):
    for split in ("train", "validation", "test"):
        env = repro_rl.make("errand")
        checks = check_env(env, split, tasks=20, factory=lambda: repro_rl.make("errand"))
        assert [check for check in checks if not check.ok] == []
    assert [check for check in my_rl.checks if not check.ok] == []


def test_the_example_vocabulary_is_complete(my_rl):
    env = repro_rl.make("errand", rooms=4, max_steps=12)
    known = set(env.vocabulary())
    for task in env.panel("train"):
        observation, info = env.reset(options={"task": task})
        for action in ("open", "left", "right", "take", "right", "right", "take", "left", "open"):
            words = f"{observation} {info['brief']} {' '.join(info['admissible'])}".split()
            assert set(words) <= known
            observation, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break


def test_the_example_names_are_found_by_entry_point(my_rl, tmp_path, monkeypatch):
    """The page's pyproject.toml, as an installed package: fresh registries find what it announces."""
    announced = tomllib.loads(blocks(EXTENDING, "toml")[0])["project"]
    lines = []
    for group, points in announced["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    folder = tmp_path / "my_rl-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rl\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    used: list[Registry[Any]] = [ENVS, CREDIT, SOURCES, ANNOTATORS, METHODS]
    groups = {registry.group: registry for registry in used}
    assert set(announced["entry-points"]) == set(groups)
    for group, points in announced["entry-points"].items():
        fresh: Registry[Any] = Registry("example", group=group)
        for name in points:
            assert fresh.get(name) is groups[group].get(name), "entry point and decorator must agree"


def test_the_example_settings_are_valid(my_rl):
    for text in blocks(EXTENDING, "yaml"):
        config = parse_config(yaml.safe_load(text))
        if config.env.name == "errand":
            env = repro_rl.make("errand", **config.env.settings)
            assert len(env.panel(config.eval.split)) >= config.eval.tasks
            assert len(env.panel(config.eval.validation_split)) >= config.eval.validation_tasks
            assert config.prompt.reflect_new_tokens >= 2 * env.max_steps + 1
    assert parse_config({"method": "repro-to-go"}).method.credit == "to-go"


def test_the_example_source_of_progress_pays_its_gains(my_rl):
    import numpy as np

    from repro_rl.credit import RewardSettings, composite_rewards
    from repro_rl.types import Completion, Step, Trajectory

    answer = Completion((), (), np.zeros(0, np.float32), "", True)
    steps = [
        Step(t, "o", "b", "a", "p", answer, "x", None, (), valid, 0.0, None)
        for t, valid in enumerate((True, False, True, True), 1)
    ]
    trajectory = Trajectory("task", 0, "goal", steps, won=False, score=0.0, truncated=True)
    settings_ = RewardSettings(shaping="valid-steps", alignment="none", beta=3.0, format_coef=0.0)
    rows = composite_rewards(trajectory, settings_, expects_online=False)
    assert [row["shaping"] for row in rows] == pytest.approx([1.0, 0.0, 1.0, 1.0])


def test_the_example_credit_rule_by_hand(my_rl):
    from repro_rl.credit import CreditSettings

    rows = my_rl.to_go([[0.0, 8.0], [0.0]], ["a", "a"], [["x", "y"], ["x"]], CreditSettings(gamma=0.5), None)
    assert rows == [[0.0, 4.0], [-4.0]]  # returns to go 4, 8 and 0; their mean is 4


def test_the_example_template_renders(tmp_path):
    (tmp_path / "forward.jinja").write_text(blocks(EXTENDING, "jinja")[0])
    prompts = PromptBuilder(TextFormat("full", progress=True, think="off"), template_dir=tmp_path)
    text = prompts.forward(
        instructions="Rules.",
        goal="Goal.",
        observation="a room",
        admissible=["up", "down"],
        history=[],
        step=2,
        max_steps=9,
    )
    assert text.splitlines()[:4] == ["Rules. Goal.", "Step 2 of 9: a room", "- up", "- down"]
    assert "<progress>" in text


def test_template_variables_are_listed():
    """Every variable that the builder gives to a template stands on the page."""
    page = EXTENDING.read_text()
    tree = ast.parse((SOURCE / "text" / "prompts.py").read_text())
    named = {
        node.name: [argument.arg for argument in node.args.kwonlyargs]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in ("forward", "reflect")
    }
    assert set(named) == {"forward", "reflect"}
    for name, variables in named.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}.jinja`"))
        assert [v for v in variables if f"`{v}`" not in row] == []


def test_the_example_levels_can_be_played(my_rl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my-levels.txt").write_text(blocks(EXTENDING, "text")[0])
    config = parse_config(settings(my_rl, "levels.yaml"))
    env = repro_rl.make("sokoban", **config.env.settings)
    assert len(env.panel("all")) == config.eval.tasks == 2
    assert [check for check in check_env(env, "all") if not check.ok] == []
    assert config.prompt.reflect_new_tokens >= 2 * env.max_steps + 1
    demos = config.demos
    experts, labelled = collect_demos(
        env,
        env.panel(demos.split).ids,
        expert=demos.expert,
        winning=demos.winning,
        failing=demos.failing,
        noise=demos.noise,
        annotator=demos.annotator,
        seed=0,
    )
    assert len(experts) == 2
    assert len(labelled) == 100


# A run on the example environment: it must work, and it shows every file and key there is ------------


@pytest.fixture(scope="module")
def run(my_rl: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Demonstrations, two warmup updates, one iteration and an evaluation, with all of the page's names."""
    from repro_rl.study.evaluate import evaluate
    from repro_rl.train.checkpoint import find_model
    from repro_rl.train.loop import run_training
    from repro_rl.train.warmup import run_warmup

    folder = tmp_path_factory.mktemp("docs")
    data = settings(my_rl, "errand.yaml")
    data["env"]["settings"] = {"rooms": 5, "max_steps": 10}
    data["policy"] = {
        "device": "cpu",
        "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16},
    }
    data["warmup"] = {"updates": 2, "forward_from": 0, "target_success": 1.0, "check_every": 2}
    data["method"] = {"name": "repro-to-go"}
    data["train"] = {"iterations": 1, "groups": 2, "group_size": 2, "minibatches": 1}
    data["train"]["init"] = str(folder / "warmup" / "model")
    data["eval"] = {"tasks": 4, "validation_tasks": 4}
    config = parse_config(data)
    env = repro_rl.make("errand", **config.env.settings)
    experts, labelled = collect_demos(
        env,
        env.panel("train").ids,
        expert=3,
        winning=6,
        failing=6,
        noise=config.demos.noise,
        annotator="accepted",
        seed=0,
    )
    save_demos(folder / "demos", experts, labelled)
    warmup: list[dict[str, Any]] = []
    run_warmup(config, folder / "demos", folder / "warmup", on_row=warmup.append)
    train: list[dict[str, Any]] = []
    run_training(config, folder / "train", on_row=train.append)
    model = find_model(folder / "train", "last")
    result = evaluate(config, model, name="last", iteration=1, out=folder / "train")
    return {"folder": folder, "warmup": warmup, "train": train, "eval": result}


def test_the_example_demonstrations_come_back(run):
    experts, labelled = load_demos(run["folder"] / "demos")
    assert (len(experts), len(labelled)) == (3, 12)
    for trajectory in labelled:
        assert trajectory.reflection is not None
        values = trajectory.reflection.values
        assert values is not None
        assert (values[-1] == 100) == trajectory.won


def test_the_example_batch_annotator_labels_successes(my_rl):
    env = repro_rl.make("errand", rooms=4, max_steps=12)
    notes: dict[str, Any] = {}
    experts, labelled = collect_demos(
        env,
        env.panel("train").ids,
        expert=2,
        winning=0,
        failing=2,
        noise=(1.0,),
        annotator="relative",
        seed=0,
        notes=notes,
    )
    for trajectory in experts:  # the failures are the longest: 12 steps
        values = [round(100 * step.t / 12) for step in trajectory.steps]
        assert trajectory.reflection is not None
        assert trajectory.reflection.values == (*values[:-1], 100)
    assert [t.reflection and t.reflection.defects for t in labelled] == [("failure",)] * 2
    assert notes["unlabelled"] == 2


# docs/metrics.md ----------------------------------------------------------------------------------

FAMILY = re.compile(r"(rollout|reflect|reward|update|time|warmup|eval)/[a-z_]*")
LOGGING = (
    "rollout/counts.py",
    "rollout/chat.py",
    "train/loop.py",
    "train/update.py",
    "train/mismatch.py",
    "train/warmup.py",
)
# Names put together at run time, spelled out. A new one of the kind makes the test below fail.
COMPOSED = {
    "reward/": [f"reward/{term}" for term in TERMS],
    "reflect/": ["reflect/final_won", "reflect/final_lost"],
    "warmup/": ["warmup/forward_loss", "warmup/reflect_loss"],
}
THE_RUN = {"iteration", "env_steps", "seconds"}


def documented(heading: str) -> set[str]:
    """First-column names of the tables under a heading, sub-headings included."""
    text = METRICS.read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}.*\n", text, re.MULTILINE)
    assert match, f"docs/metrics.md has no heading {heading!r}"
    rest = text[match.end() :]
    stop = re.search(rf"^#{{2,{len(match[1])}}} ", rest, re.MULTILINE)
    return set(re.findall(r"^\| `([^`]+)` \|", rest[: stop.start() if stop else None], re.MULTILINE))


def logged() -> set[str]:
    """Every metric name in the code that logs."""
    names: set[str] = set()
    for file in LOGGING:
        for node in ast.walk(ast.parse((SOURCE / file).read_text())):
            if isinstance(node, ast.JoinedStr):
                first = node.values[0] if node.values else None
                if isinstance(first, ast.Constant) and FAMILY.fullmatch(str(first.value)):
                    assert first.value in COMPOSED, f"{file}, line {node.lineno}: spell {first.value} out"
                    names.update(COMPOSED[first.value])
            elif isinstance(node, ast.Constant):
                text = str(node.value)
                if FAMILY.fullmatch(text) and not text.endswith("/"):
                    names.add(text)
    return names


def test_every_logged_metric_is_explained_and_no_other():
    train, warmup = documented("Training"), documented("Warmup")
    assert train | warmup == logged() | THE_RUN
    assert {name for name in warmup if "/" in name} == {
        name for name in logged() if name.startswith("warmup/")
    } | {"eval/success"}


def test_a_run_logs_nothing_else(run):
    assert {name for row in run["train"] for name in row} <= documented("Training")
    assert {name for row in run["warmup"] for name in row} == documented("Warmup")


def test_every_key_of_an_evaluation_is_explained_and_no_other(run):
    result = json.loads((run["folder"] / "train" / "eval" / "last.json").read_text())
    quality = {name for part in result["progress"].values() for name in part}
    assert documented("Progress quality") == quality
    assert documented("Evaluation") == set(result) | quality


def test_every_key_of_a_record_is_explained_and_no_other(run):
    folder = run["folder"] / "train" / "trajectories"
    records = list(read_trajectories(folder / "iteration-00001.jsonl.gz"))
    record, text = records[0], METRICS.read_text()
    step, reflection = record["steps"][0], record["reflection"]
    assert documented("A step of a record") == set(step)
    assert documented("The reflection of a record") == set(reflection)
    assert documented("A trajectory record") == set(record) | set(step) | set(reflection)
    assert set(step["terms"]) == set(TERMS)
    assert set(reflection["terms"]) == set(REFLECTION_TERMS)
    assert [term for term in (*TERMS, *REFLECTION_TERMS) if f"`{term}`" not in text] == []


def test_every_file_of_a_run_is_explained(run):
    """Files are named as they are, or with a placeholder in angle brackets."""
    patterns = [re.sub(r"<[^>]+>", "*", name) for name in documented("A run folder")]
    write_json(run["folder"] / "demos" / "demos.json", {})  # the command writes it
    for place in ("demos", "warmup", "train"):
        root = run["folder"] / place
        for file in (path.relative_to(root) for path in root.rglob("*") if path.is_file()):
            parents = [f"{parent}/" for parent in file.parents if str(parent) != "."]
            explained = any(
                file.match(pattern) or any(Path(parent).match(pattern) for parent in parents)
                for pattern in patterns
            )
            assert explained, f"{place}/{file} is not in docs/metrics.md"


# All pages ----------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """The link target that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, part = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists():
            dead.append(link)
        elif part and target.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            if part not in map(anchor, headings):
                dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", SHIPPED_METHODS)
def test_every_method_is_described(name):
    assert f"`{name}`" in METHOD.read_text()
