"""The pilot study: what a model was taught decides what it plays; the statistics of its conditions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repro_rl.config import load_config
from repro_rl.demos.incontext import mode_labels
from repro_rl.errors import ConfigError
from repro_rl.files import write_json
from repro_rl.report.pilot import tables
from repro_rl.run.lineage import taught_modes
from repro_rl.run.setup import set_up
from repro_rl.study.pilot import CONDITIONS, find_conditions, seed_config, split_taught, warm_start_settings
from repro_rl.study.pilot_results import PilotRuns, pairs, pilot_data, spread

# What a model was taught --------------------------------------------------------------------------


def test_a_tiny_model_plays_only_prompts_it_was_taught(tmp_path: Path) -> None:
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
    taught = frozenset({"action", "progress"})
    played, left_out, remarks = split_taught("compact", CONDITIONS, taught)
    assert [item.name for item in played] == ["base", "meta"]
    assert set(left_out) == {"plain", "random", "retrospective"}
    assert not remarks
    assert "demos-random" in left_out["random"]
    played, left_out, remarks = split_taught("full", CONDITIONS, taught)
    assert len(played) == 5
    assert not left_out
    assert len(remarks) == 3
    assert split_taught("full", CONDITIONS, None) == (list(CONDITIONS), {}, [])


def test_warm_starts_teach_every_prompt_as_much_as_the_recipe_does() -> None:
    recipe = load_config("sokoban-tiny").warmup  # 32 rows for two kinds of prompt
    more = warm_start_settings(recipe, CONDITIONS)
    section = load_config("sokoban-tiny", more).warmup
    assert section.forward_modes == tuple(item.mode for item in CONDITIONS)
    assert section.forward_batch == 80
    assert section.target_success is None


def test_default_models_keep_their_words() -> None:
    """A word more would change every tiny model that was ever trained."""
    default = set_up(load_config("sokoban-tiny")).tiny_words()
    taught = set_up(load_config("sokoban-tiny", ["warmup.forward_modes=[action, demos-plain]"])).tiny_words()
    assert taught - default == {"demo", "now"}


def test_every_condition_is_a_prompt_mode() -> None:
    assert [mode_labels(item.mode) for item in CONDITIONS] == [None, None, "plain", "random", "retrospective"]


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


def test_an_older_result_without_a_score_counts_by_its_success(tmp_path: Path) -> None:
    settings = {"panel": "p", "digest": "d", "tasks": 2, "rollouts_per_task": 1, "temperature": 0.4}
    newer = {**settings, "success": 0.5, "score": 0.7, "low": 0.1, "high": 0.9}
    write_json(tmp_path / "seed0" / "eval" / "base.json", newer)
    write_json(tmp_path / "seed0" / "eval" / "meta.json", {**settings, "success": 1.0})
    chosen = find_conditions(["base", "meta"])
    data = pilot_data(PilotRuns(tmp_path, chosen, [0]), load_config(None), agent="a", left_out={})
    base, meta = data["conditions"]
    assert (base["score"]["by_seed"], meta["score"]["by_seed"]) == ({"0": 0.7}, {})
    assert (base["success"]["tasks"], meta["success"]["tasks"]) == ([0.1, 0.9], None)
    assert [(pair["metric"], pair["by_seed"]) for pair in data["differences"]] == [("success", {"0": 0.5})]
    assert len(tables(data)) == 3  # two of the conditions, one of the differences


def test_an_unknown_condition_is_named() -> None:
    with pytest.raises(ConfigError, match=r"retrospectiv'.*retrospective"):
        find_conditions(["base", "retrospectiv"])
    assert [item.name for item in find_conditions(["meta", "base"])] == ["base", "meta"]
    assert seed_config(load_config(None), 2).eval.seed == load_config(None).eval.seed + 2
