"""The benchmarks that need no extra package run, on a small job, and print what they promise."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from repro_rl.config import dump_config, load_config

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))

    def start(name, *arguments):
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
        importlib.import_module(name).main()
        return capsys.readouterr().out

    return start


@pytest.fixture
def recipe(warm, tmp_path):
    path = tmp_path / "recipe.yaml"
    settings = yaml.safe_load(dump_config(load_config(None, warm.settings)))
    del settings["method"]  # written out, it would overrule the names that the benchmarks give
    path.write_text(yaml.safe_dump(settings))
    return ["--quick", "--recipe", path, "--init", warm.model]


def ratios(text):
    return [float(value) for value in re.findall(r"(\d+\.\d\d) \(\d+\.\d\d to \d+\.\d\d\)", text)]


def test_generation(run, recipe):
    text = run("generation", *recipe)
    assert len(ratios(text)) == 6
    assert "greedy tokens equal" in text


def test_reflection_overhead(run, recipe, warm):
    text = run("reflection_overhead", *recipe, "--demos", warm.demos, "method.rehearsal=2")
    rows = {line[:14].strip(): line.split() for line in text.splitlines()}
    assert ratios(text)[0] == 1.0
    assert len(ratios(text)) == 5
    assert rows["GiGPO"][2] == "0.00"  # nothing is judged
    assert float(rows["RePro"][2]) > 0


def test_reflection_forms(run, recipe, warm):
    text = run(
        "reflection_forms", "--model", warm.model, "--recipe", recipe[2], "--episodes", 9, "--tasks", 3
    )
    rows = {line.split()[0]: line.split() for line in text.splitlines()[2:]}
    assert set(rows) == {"free", "guided"}
    assert rows["guided"][1] == "100%"
    tokens, sampled = map(float, rows["guided"][2:4])
    assert sampled == pytest.approx((tokens - 1) / 2, abs=0.06)  # a value of two words, and the end
    assert rows["free"][2] == rows["free"][3]


def test_reflection_overhead_in_the_papers_proportions(run):
    text = run("reflection_overhead", "--quick", "--paper", "--answer", 6, "--reflection", 12)
    rows = {line[:14].strip(): line.split() for line in text.splitlines()}
    assert set(rows) >= {"GiGPO", "+ reflection", "+ an eighth", "RePro"}
    assert len(ratios(text)) == 5
    *_, answer, judgement, steps, _, _, _, _ = rows["RePro"]
    assert 0 < float(answer) <= 6 < float(judgement) <= 12
    assert steps == "15.0"  # nothing ends an episode early


def test_update(run, recipe):
    text = run("update", *recipe)
    assert len(ratios(text)) == 6
    samples, rows, tokens, nodes = (
        int(value.replace(",", ""))
        for value in re.findall(r"([\d,]+) (?:samples|distinct|tokens of|tree nodes)", text)
    )
    assert samples >= rows
    assert tokens > nodes > rows


def test_pretrained_cpu(run, tmp_path):
    out = tmp_path / "figures.json"
    text = run("pretrained_cpu", "--quick", "--out", out)
    found = json.loads(out.read_text())
    assert json.loads(text[text.index("{") :]) == found
    for name in ("chat", "window", "update_chat", "update_window"):
        assert found[name]["times_faster"] > 0
    assert min(found["raw"].values()) > 0
    assert found["update_window"]["nodes"] < found["update_window"]["tokens"]
    memory = found["cache_gb"]
    assert memory["arithmetic"] == pytest.approx(32 * 3000 * 2 * 192 * 2 / 1e9)  # one layer
    assert memory["first_turns_shared"] < memory["arithmetic"] < memory["alone"] < 1.1 * memory["arithmetic"]


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is here")
def test_without_trl_the_comparison_says_how_to_install_it(run):
    with pytest.raises(SystemExit, match="make bench-trl"):
        run("rl_iteration", "--quick")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fresh interpreter would take seconds to import")
def test_killed_annotations_pay_no_more_than_the_calls_in_flight_again(run, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    text = run("annotating_kills", "kills", "--trials", 3, "--episodes", 12, "--concurrency", 4)
    again = re.search(r"asked again after a kill: at most (\d+)", text)
    assert again is not None
    assert int(again[1]) <= 4
    assert text.startswith("3 kills")
    assert "stored answers asked again: 0\nlabels that differ: 0" in text
    assert text.count("answers/s") == 0
    assert run("annotating_kills", "store", "--answers", 40).count("answers/s") == 2
