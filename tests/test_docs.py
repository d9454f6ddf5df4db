"""The pages: their examples run, their links lead somewhere, every metric and method is named."""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

import repro_rl
from repro_rl.cli.stages import make_demos, run_warmup_stage
from repro_rl.config import METHODS, DemosSection, load_config, parse_config
from repro_rl.credit import CREDIT, SOURCES
from repro_rl.credit.reward import REFLECTION_TERMS, TERMS
from repro_rl.demos import ANNOTATORS, CollectHooks, collect_demos, load_demos, save_demos
from repro_rl.envs.base import ENVS
from repro_rl.envs.checker import check_env
from repro_rl.files import whole_rows, write_json
from repro_rl.losses.functions import check_loss
from repro_rl.losses.named import LOSS_NAMES, PUBLISHED, Aggregation
from repro_rl.registry import Registry
from repro_rl.rollout import read_trajectories
from repro_rl.rollout.record_schema import StepRecord
from repro_rl.text import PromptBuilder, StepInputs, TextFormat
from repro_rl.types import Status, Step, Trajectory, no_completion

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "repro_rl"
EXTENDING, METRICS, METHOD = (ROOT / "docs" / f"{name}.md" for name in ("extending", "metrics", "method"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REGISTRIES: list[Registry[Any]] = [ENVS, CREDIT, SOURCES, LOSS_NAMES, ANNOTATORS, METHODS]
SHIPPED_METHODS = METHODS.names()  # before the examples add theirs


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


# docs/extending.md --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def my_rl() -> Iterator[ModuleType]:
    """The page's Python blocks as the module ``my_rl``; what they register is taken back at the end."""
    module = ModuleType("my_rl")
    with ExitStack() as stack:
        for registry in REGISTRIES:
            stack.enter_context(registry.isolated())
        sys.modules["my_rl"] = module
        stack.callback(sys.modules.pop, "my_rl")
        for number, code in enumerate(blocks(EXTENDING, "python"), 1):
            exec(compile(code, f"{EXTENDING.name}, Python block {number}", "exec"), module.__dict__)
        yield module


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


def test_the_page_is_a_module_that_checks_itself_only_when_it_is_run(tmp_path):
    """The blocks as the file ``my_rl.py``: the setting ``plugins`` imports it, and running it checks."""
    (tmp_path / "my_rl.py").write_text("\n\n".join(blocks(EXTENDING, "python")))
    (tmp_path / "errand.yaml").write_text(
        next(text for text in blocks(EXTENDING, "yaml") if text.startswith("# errand.yaml"))
    )
    code = (
        "import repro_rl; config = repro_rl.load_config('errand.yaml', "
        "['plugins=[my_rl]', 'method=repro-to-go']); "
        "print(config.method.credit, repro_rl.make('errand').name)"
    )
    path = os.pathsep.join([str(tmp_path), str(SOURCE.parent)])

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

    assert output("-c", code) == "to-go errand\n", "importing the page must print nothing"
    assert {line[:4] for line in output("my_rl.py").splitlines()} == {"ok  "}


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
    announced = tomllib.loads(blocks(EXTENDING, "toml")[0])["project"]
    lines = []
    for group, points in announced["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    folder = tmp_path / "my_rl-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rl\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    groups = {registry.group: registry for registry in REGISTRIES}
    assert set(announced["entry-points"]) == set(groups)
    for group, points in announced["entry-points"].items():
        fresh: Registry[Any] = Registry("example", group=group, record=groups[group].record)
        for name in points:
            assert fresh.get(name) == groups[group].get(name), "entry point and decorator must agree"


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
    from repro_rl.credit import RewardSettings, composite_rewards

    steps = [
        Step(t, "o", "b", "a", "p", no_completion(), "x", None, (), valid, 0.0, None)
        for t, valid in enumerate((True, False, True, True), 1)
    ]
    trajectory = Trajectory("task", 0, "goal", steps, won=False, score=0.0, status=Status.TRUNCATED)
    rows = composite_rewards(trajectory, RewardSettings(progress=False, shaping="valid-steps", beta=3.0))
    assert [row["shaping"] for row in rows] == pytest.approx([1.0, 0.0, 1.0, 1.0])


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
    (tmp_path / "forward.jinja").write_text(blocks(EXTENDING, "jinja")[0])
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
            line for line in EXTENDING.read_text().splitlines() if line.startswith(f"| `{name}.jinja`")
        )
        assert [v for v in names if f"`{v}`" not in row] == []


def test_the_example_levels_can_be_played(my_rl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my-levels.txt").write_text(blocks(EXTENDING, "text")[0])
    config = parse_config(settings(my_rl, "levels.yaml"))
    env = repro_rl.make("sokoban", **config.env.settings)
    assert len(env.panel("all")) == config.eval.tasks == 2
    assert [check for check in check_env(env, "all") if not check.ok] == []
    assert config.prompt.reflect_new_tokens >= 2 * env.max_steps + 1
    experts, labelled = collect_demos(env, env.panel(config.demos.split).ids, config.demos, seed=0)
    assert len(experts) == config.demos.expert + config.demos.wandering_episodes == 10
    assert len(labelled) == 100


# A run on the example environment: it must work, and it shows every file and key there is ------------


@pytest.fixture(scope="module")
def run(my_rl: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Demonstrations, two warmup updates, one iteration and an evaluation, with all of the page's names."""
    from repro_rl.run.model_paths import find_model
    from repro_rl.study.evaluate import EvalRequest, evaluate
    from repro_rl.train import run_training, run_warmup

    folder = tmp_path_factory.mktemp("docs")
    data = settings(my_rl, "errand.yaml")
    data["env"]["settings"] = {"rooms": 5, "max_steps": 10}
    data["policy"] = {
        "device": "cpu",
        "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16},
    }
    data["warmup"] = {"updates": 2, "forward_from": 0, "target_success": 1.0, "check_every": 2, "held_out": 1}
    data["method"] = {"name": "repro-to-go"}
    data["demos"] |= {"expert": 3, "winning": 6, "failing": 6, "annotator": "accepted"}
    data["train"] = {"iterations": 1, "groups": 2, "group_size": 2, "minibatches": 1}
    data["train"]["loss"] = {"name": "gentle", "settings": {"negative": 0.7}}
    data["train"]["init"] = str(folder / "warmup" / "model")
    data["eval"] = {"tasks": 4, "validation_tasks": 4}
    config = parse_config(data)
    env = repro_rl.make("errand", **config.env.settings)
    save_demos(folder / "demos", *collect_demos(env, env.panel("train").ids, config.demos, seed=0))
    warmup: list[dict[str, Any]] = []
    run_warmup(config, folder / "demos", folder / "warmup", on_row=warmup.append)
    train: list[dict[str, Any]] = []
    run_training(config, folder / "train", on_row=train.append)
    model = find_model(folder / "train", "last")
    result = evaluate(config, model, EvalRequest("last", iteration=1, out=folder / "train"))
    return {"folder": folder, "warmup": warmup, "train": train, "eval": result}


def test_the_example_demonstrations_come_back(run):
    experts, labelled = load_demos(run["folder"] / "demos")
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
        expert=2, winning=0, failing=2, noise=(1.0,), annotator="relative", slips=(0.0,), wandering=0
    )
    experts, labelled = collect_demos(env, env.panel("train").ids, section, seed=0, hooks=hooks)
    for trajectory in experts:  # the failures are the longest: 12 steps
        values = [round(100 * step.t / 12) for step in trajectory.steps]
        assert trajectory.reflection is not None
        assert trajectory.reflection.values == (*values[:-1], 100)
    assert [t.reflection and t.reflection.defects for t in labelled] == [("failure",)] * 2
    assert hooks.notes["unlabelled"] == 2


# docs/demonstrations.md ---------------------------------------------------------------------------

DEMONSTRATIONS = ROOT / "docs" / "demonstrations.md"


def test_the_episodes_of_the_page_warm_a_model_up(my_rl, tmp_path, monkeypatch):
    """The page's file and commands, with a smaller model and two updates."""
    monkeypatch.chdir(tmp_path)
    (lines,) = blocks(DEMONSTRATIONS, "jsonl")
    Path("my-episodes.jsonl").write_text(lines)
    text = DEMONSTRATIONS.read_text()
    (words,) = re.findall(r"^repro-rl demos .* -o runs/own (.*)$", text, re.MULTILINE)
    data = settings(my_rl, "errand.yaml") | {
        "policy": {
            "device": "cpu",
            "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16},
        },
        "warmup": {"updates": 2, "forward_from": 0, "target_success": None},
    }
    Path("errand.yaml").write_text(yaml.safe_dump(data))
    config = load_config("errand.yaml", words.replace("'", "").split())
    make_demos(config, Path("runs/own"))
    model = run_warmup_stage(config, Path("runs/own"), Path("runs/own-warmup"))
    assert (model / "config.json").is_file()
    rows = whole_rows(Path("runs/own-warmup/metrics.jsonl"))
    assert all(row["warmup/forward_loss"] > 0 < row["warmup/reflect_loss"] for row in rows)
    experts, labelled = load_demos("runs/own")
    assert [[step.online for step in t.steps] for t in (*experts, *labelled)] == [
        [20, 40, 60, 80, 100],
        [0, 17, 33, 50, 67, 83, 100],  # by the oracle
        [0, 10, 0],
    ]
    assert [step.mistake for step in experts[1].steps] == [True, *[False] * 6]


def test_the_chat_log_of_the_page_becomes_an_episode(my_rl, capsys, tmp_path):
    (code,) = blocks(DEMONSTRATIONS, "python")
    exec(compile(code, DEMONSTRATIONS.name, "exec"), {})
    line = capsys.readouterr().out
    assert json.loads(line) == {
        "task": "errand8/train/1",
        "actions": ["right", "take"],
        "progress": [20, 40],
    }
    file = tmp_path / "chat.jsonl"
    file.write_text(line)
    env = repro_rl.make("errand")
    section = DemosSection(expert=0, winning=0, failing=0, episodes=(str(file),))
    experts, (episode,) = collect_demos(env, env.panel("train").ids, section, seed=0)
    assert (experts, episode.status, episode.truncated) == ([], Status.TRUNCATED, True)


# docs/metrics.md ----------------------------------------------------------------------------------

FAMILY = re.compile(r"(rollout|reflect|reward|update|time|warmup|eval)/[a-z_]*")
LOGGING = (
    "rollout/counts.py",
    "rollout/context/chat.py",
    "train/rl.py",
    "train/update.py",
    "train/mismatch.py",
    "train/scoring.py",
    "train/sft.py",
)
# Names put together at run time, spelled out. A new one of the kind makes the test below fail.
ACCURACIES = ("action_accuracy", "progress_accuracy")
COMPOSED = {
    "reward/": [f"reward/{term}" for term in (*TERMS, "overlong")],
    "reflect/": ["reflect/final_won", "reflect/final_lost"],
    "warmup/": [
        *(
            f"warmup/{name}"
            for name in ("forward_loss", "reflect_loss", "held_out_loss", "skipped", *ACCURACIES)
        ),
        *(f"warmup/held_out_{name}" for name in ACCURACIES),
    ],
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
    in_steps = {*step, "advice"}  # which steps of demonstrations with mistakes alone have
    assert documented("A step of a record") == in_steps == set(StepRecord.__annotations__)
    assert documented("The reflection of a record") == set(reflection)
    assert documented("A trajectory record") == set(record) | in_steps | set(reflection)
    assert set(step["terms"]) == set(TERMS)
    assert set(reflection["terms"]) == set(REFLECTION_TERMS)
    assert [term for term in (*TERMS, *REFLECTION_TERMS) if f"`{term}`" not in text] == []


def test_every_file_of_a_run_is_explained(run):
    """Files are named as they are, or with a placeholder in angle brackets."""
    patterns = [re.sub(r"<[^>]+>", "*", name) for name in documented("A run folder")]
    write_json(run["folder"] / "demos" / "demos.json", {})  # the command writes it
    for stage in ("demos", "warmup", "train"):
        root = run["folder"] / stage
        for file in (path.relative_to(root) for path in root.rglob("*") if path.is_file()):
            parents = [f"{parent}/" for parent in file.parents if str(parent) != "."]
            explained = any(
                file.match(pattern) or any(Path(parent).match(pattern) for parent in parents)
                for pattern in patterns
            )
            assert explained, f"{stage}/{file} is not in docs/metrics.md"


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


DECISIONS = ROOT / "docs" / "decisions.md"


def test_every_decision_that_is_named_exists():
    decisions = set(re.findall(r"^### (D\d+)$", DECISIONS.read_text(), re.MULTILINE))
    sources = [*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *PAGES]
    named = {n for file in sources for n in re.findall(r"\b[Dd]ecision\s+(?:# )?(D\d+)\b", file.read_text())}
    assert sorted(named - decisions) == []


def test_the_decisions_name_files_that_exist():
    files = re.findall(
        r"`([\w/.-]+\.(?:py|yaml)|[\w/-]+/)`", re.sub(r"`config\.yaml`", "", DECISIONS.read_text())
    )
    assert [name for name in files if name != "src/repro_rl/" and not (SOURCE / name).exists()] == []


def test_no_page_or_code_points_at_unpublished_pages():
    phrase = re.compile(r"[Oo]ur (?:decision|convention)|\bMETHOD(?:'s|:|,| \()|\bMICRO\b")
    files = [*SOURCE.rglob("*.py"), *PAGES]
    assert [str(file.relative_to(ROOT)) for file in files if phrase.search(file.read_text())] == []


# docs/credit.md -----------------------------------------------------------------------------------

CREDIT_PAGE = ROOT / "docs" / "credit.md"


def test_the_numbers_of_the_credit_page_are_right():
    for code in blocks(CREDIT_PAGE, "python"):
        exec(compile(code, CREDIT_PAGE.name, "exec"), {})


def test_every_credit_rule_and_loss_has_its_place_on_the_page(my_rl):
    text = CREDIT_PAGE.read_text()
    rules = [name for name in CREDIT.names() if CREDIT.get(name).shipped]
    assert [name for name in rules if f"`{name}`" not in text and name != "mt_grpo_multi"] == []
    assert [name for name in PUBLISHED if f"| `{name}` |" not in text] == []
    assert [name for name in get_args(Aggregation) if f"`{name}`" not in text] == []
