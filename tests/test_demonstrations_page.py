"""docs/own-episodes.md: episodes of one's own warm a model up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

import repro_rl
from repro_rl.cli.stages import run_demos_stage, run_warmup_stage
from repro_rl.config import DemosSection, load_config
from repro_rl.demos import collect_demos, load_demos
from repro_rl.files import whole_rows
from repro_rl.types import Status
from support.extending_page import ROOT, blocks, page_settings

PAGE = ROOT / "docs" / "own-episodes.md"


def test_the_episodes_of_the_page_warm_a_model_up(my_rl, tmp_path, monkeypatch):
    """The page's file and commands, with a smaller model and two updates."""
    monkeypatch.chdir(tmp_path)
    (lines,) = blocks(PAGE, "jsonl")
    Path("my-episodes.jsonl").write_text(lines)
    text = PAGE.read_text()
    (words,) = re.findall(r"^repro-rl demos .* -o runs/own \\\n  (.*)$", text, re.MULTILINE)
    data = page_settings("errand.yaml") | {
        "policy": {
            "device": "cpu",
            "tiny": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 16},
        },
        "warmup": {"updates": 2, "forward_from": 0, "target_success": None},
    }
    Path("errand.yaml").write_text(yaml.safe_dump(data))
    config = load_config("errand.yaml", words.replace("'", "").split())
    run_demos_stage(config, Path("runs/own"))
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
    (code,) = blocks(PAGE, "python")
    exec(compile(code, PAGE.name, "exec"), {})
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
