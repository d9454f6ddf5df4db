"""What a run on the example environment writes is explained: every metric, key and file.

Pages: metrics.md, evaluation.md, progress-quality.md, records.md, run-folder.md.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import repro_rl
from repro_rl.config import parse_config
from repro_rl.credit.reward import REFLECTION_TERMS, TERMS
from repro_rl.demos import collect_demos, save_demos
from repro_rl.files import write_json
from repro_rl.rollout import read_trajectories
from repro_rl.rollout.record_schema import StepRecord
from support.extending_page import ROOT, page_settings

SOURCE = ROOT / "src" / "repro_rl"
FAMILY = re.compile(r"(rollout|reflect|reward|update|time|warmup|validation)/[a-z_]*")
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


@pytest.fixture(scope="module")
def run(my_rl: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Demonstrations, two warmup updates, one iteration and an evaluation, with all of the page's names."""
    from repro_rl.run.model_paths import find_model
    from repro_rl.study.evaluate import EvalRequest, evaluate
    from repro_rl.train import run_training, run_warmup

    folder = tmp_path_factory.mktemp("docs")
    data = page_settings("errand.yaml")
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


def documented(page: str, heading: str) -> set[str]:
    """First-column names of the tables under a heading of a page, sub-headings included."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match, f"docs/{page}.md has no heading {heading!r}"
    rest = text[match.end() :]
    stop = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
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
    train, warmup = documented("metrics", "Training"), documented("metrics", "Warmup")
    assert train | warmup == logged() | THE_RUN
    assert {name for name in warmup if "/" in name} == {
        name for name in logged() if name.startswith("warmup/")
    } | {"validation/success"}


def test_a_run_logs_nothing_else(run):
    assert {name for row in run["train"] for name in row} <= documented("metrics", "Training")
    assert {name for row in run["warmup"] for name in row} == documented("metrics", "Warmup")


def test_every_key_of_an_evaluation_is_explained_and_no_other(run):
    result = json.loads((run["folder"] / "train" / "eval" / "last.json").read_text())
    quality = {name for part in result["progress"].values() for name in part}
    assert documented("progress-quality", "Progress quality") == quality
    assert documented("evaluation", "The result of an evaluation") == set(result)


def test_every_key_of_a_record_is_explained_and_no_other(run):
    folder = run["folder"] / "train" / "trajectories"
    records = list(read_trajectories(folder / "iteration-00001.jsonl.gz"))
    record, text = records[0], (ROOT / "docs" / "records.md").read_text()
    step, reflection = record["steps"][0], record["reflection"]
    in_steps = {*step, "advice"}  # which steps of demonstrations with mistakes alone have
    assert documented("records", "The episode") == set(record)
    assert documented("records", "A step") == in_steps == set(StepRecord.__annotations__)
    assert documented("records", "The reflection") == set(reflection)
    assert set(step["terms"]) == set(TERMS)
    assert set(reflection["terms"]) == set(REFLECTION_TERMS)
    assert [term for term in (*TERMS, *REFLECTION_TERMS) if f"`{term}`" not in text] == []


def test_every_file_of_a_run_is_explained(run):
    """Files are named as they are, or with a placeholder in angle brackets."""
    patterns = [re.sub(r"<[^>]+>", "*", name) for name in documented("run-folder", "A run folder")]
    write_json(run["folder"] / "demos" / "demos.json", {})  # the command writes it
    for stage in ("demos", "warmup", "train"):
        root = run["folder"] / stage
        for file in (path.relative_to(root) for path in root.rglob("*") if path.is_file()):
            parents = [f"{parent}/" for parent in file.parents if str(parent) != "."]
            explained = any(
                file.match(pattern) or any(Path(parent).match(pattern) for parent in parents)
                for pattern in patterns
            )
            assert explained, f"{stage}/{file} is not in docs/run-folder.md"
