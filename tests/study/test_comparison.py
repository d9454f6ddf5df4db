"""Tables of a comparison on outcomes worked by hand."""

from __future__ import annotations

import json

import pytest

from repro_rl.errors import DataError
from repro_rl.files import read_json, write_json
from repro_rl.report.comparison import as_html, as_markdown, headline, write_comparison
from repro_rl.study.comparison import comparison_data
from repro_rl.study.definition import load_study
from support.studies import write_curve, write_result


def test_tables_by_hand(tmp_path):
    study = load_study(None, methods=["repro", "gigpo", "warmup-only"], seeds=[0, 1, 2])
    # Success of 4 tasks: repro .75 .5 1, gigpo .5 .5 .25; differences .25 0 .75, mean 1/3.
    for seed, (mine, theirs) in enumerate(
        [((1, 1, 1, 0), (1, 1, 0, 0)), ((1, 1, 0, 0), (1, 0, 1, 0)), ((1, 1, 1, 1), (0, 1, 0, 0))]
    ):
        write_result(
            tmp_path, "repro", seed, mine, by_type={"<b>pick|up</b>": {"success": mine[0], "episodes": 1}}
        )
        write_result(tmp_path, "gigpo", seed, theirs)
        write_curve(tmp_path, "repro", seed, [(100, 60.0, 0.25), (200, 120.0, 0.5 + seed / 10)])
    write_result(tmp_path, "warmup-only", 0, (0, 0, 0, 0))
    data = comparison_data(study, tmp_path)
    (block,) = data["evaluations"]
    assert block["metrics"] == ["success"]  # the score says nothing more
    repro, gigpo, warm = block["arms"]
    assert repro["success"]["mean"] == pytest.approx(0.75)
    assert (repro["success"]["best"], repro["success"]["worst"]) == (1.0, 0.5)
    # t(2) = 4.3027, standard error .25 / sqrt(3)
    assert repro["success"]["t"] == pytest.approx([0.75 - 0.6210, 0.75 + 0.6210], abs=1e-3)
    assert repro["by_type"]["<b>pick|up</b>"]["mean"] == 1.0
    assert repro["seconds"]["mean"] == 120.0
    assert gigpo["env_steps"] is None
    assert warm["missing"] == [1, 2]
    pair, last = block["differences"]
    assert (pair["reference"], pair["other"]) == ("repro", "gigpo")
    assert pair["by_seed"] == {"0": 0.25, "1": 0.0, "2": 0.75}
    assert pair["p"] == 0.5  # sums of signs reach 1 in 4 of 8 patterns, 0 having no sign
    assert pair["p_holm"] == 0.5  # alone in its family: the warm start is no trained arm
    assert pair["p_smallest"] == 0.25
    assert pair["tasks"] == 4
    assert pair["crossed"][0] <= pair["mean"] <= pair["crossed"][1]
    assert (last["other"], last["seeds"], last["t"], last["p"]) == ("warmup-only", [0], None, None)
    assert any("warmup-only: no result for seed 1, 2" in note for note in block["notes"])
    assert any("goes below 0 or above 1" in note for note in block["notes"])  # .75 + .62

    text = as_markdown(data)
    assert "| repro − gigpo | 3 | +0.333 |" in text
    assert "| warmup-only (not trained) | 1 | 0.000 | – | – | 0.000 | 0.000 | 0.000 | 0.000 – – |" in text
    assert "\\<b\\>pick\\|up\\</b\\>" in text
    page = as_html(data)
    assert "&lt;b&gt;pick|up&lt;/b&gt; (1)" in page
    assert "<b>pick" not in page
    assert "<script" not in page
    assert {path.name for path in write_comparison(data, tmp_path)} == {
        *(f"comparison.{kind}" for kind in ("json", "md", "html", "svg", "png")),
        *(f"comparison-ranking.{kind}" for kind in ("svg", "png")),
    }
    json.loads((tmp_path / "comparison.json").read_text())


def test_a_graded_score_is_a_second_metric(tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0, 1])
    for seed in (0, 1):
        write_result(tmp_path, "repro", seed, (1, 0), scores=(1.0, 0.5))
        write_result(tmp_path, "gigpo", seed, (1, 0), scores=(1.0, 0.1))
    (block,) = comparison_data(study, tmp_path)["evaluations"]
    assert block["metrics"] == ["success", "score"]
    pair = next(p for p in block["differences"] if p["metric"] == "score")
    assert pair["mean"] == pytest.approx(0.2)
    # Without spread over seeds the tasks are all that varies: 0 or .4 for each of two.
    assert pair["crossed"] == pytest.approx([0.0, 0.4])
    assert "### Score on the held-out panel" in as_markdown(comparison_data(study, tmp_path))


def test_a_result_without_a_score_is_compared_by_its_success_alone(tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0, 1])
    for seed in (0, 1):
        write_result(tmp_path, "repro", seed, (1, 0), scores=(1.0, 0.5))
        write_result(tmp_path, "gigpo", seed, (0, 0), scores=(0.2, 0.0))
    older = tmp_path / "runs" / "gigpo" / "seed1" / "eval" / "last.json"
    write_json(older, {key: value for key, value in read_json(older).items() if key != "score"})
    (block,) = comparison_data(study, tmp_path)["evaluations"]
    by_metric = {pair["metric"]: pair["by_seed"] for pair in block["differences"]}
    assert by_metric["success"] == {"0": 0.5, "1": 0.5}
    assert by_metric["score"] == {"0": pytest.approx(0.65)}  # .75 - .1
    as_markdown(comparison_data(study, tmp_path))


def test_runs_on_different_tasks_are_not_compared(tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0])
    with pytest.raises(DataError, match="No evaluated run"):
        comparison_data(study, tmp_path)
    write_result(tmp_path, "repro", 0, (1, 0))
    write_result(tmp_path, "gigpo", 0, (1, 0), digest="d2")
    with pytest.raises(DataError, match=r"digest 'd1'.*'d2'"):
        comparison_data(study, tmp_path)


@pytest.mark.parametrize(
    ("env_steps", "steps", "words"),
    [
        (None, (3342, 4390), "from 3,342 to 4,390 environment steps a run. Set env_steps in the study."),
        (3000, (3342, 4390), "env_steps=3,000 and then finished its last"),
        (4000, (3342, 4390), "Not every run has reached the study's env_steps=4,000."),
        (3000, (4000, 4390), None),
    ],
)
def test_the_note_on_budgets_names_the_cause(env_steps, steps, words, tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0, 1], env_steps=env_steps)
    for arm, spent in zip(("repro", "gigpo"), steps, strict=True):
        for seed in (0, 1):
            write_result(tmp_path, arm, seed, (1, 0))
            write_curve(tmp_path, arm, seed, [(spent, 60.0, 0.5)])
    (block,) = comparison_data(study, tmp_path)["evaluations"]
    found = [note for note in block["notes"] if "budgets differ" in note]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
    assert not any("goes below 0" in note for note in block["notes"])  # all runs won half


def test_one_seed_is_said_to_give_no_interval(tmp_path):
    study = load_study(None, methods=["repro", "gigpo"], seeds=[0])
    write_result(tmp_path, "repro", 0, (1, 1, 1, 0))
    write_result(tmp_path, "gigpo", 0, (1, 1, 0, 0))
    data = comparison_data(study, tmp_path)
    (note,) = [note for note in data["evaluations"][0]["notes"] if "seed" in note]
    assert note.startswith("One seed gives no interval over seeds")
    assert "--seeds 0-4" in note
    assert headline(data) == [
        "repro: success 0.750 over 1 seed. No difference has an interval, for which two seeds are needed."
    ]


def test_holm_corrects_over_the_arms_that_train(tmp_path):
    study = load_study(None, methods=["repro", "gigpo", "grpo", "warmup-only"], seeds=[0, 1, 2])
    # Differences of repro: .1 .2 .4 (p 2/8), -.1 .2 .4 (p 4/8), .1 .1 .1 (p 2/8).
    for arm, values in (
        ("repro", (0.5, 0.6, 0.8)),
        ("gigpo", (0.4, 0.4, 0.4)),
        ("grpo", (0.6, 0.4, 0.4)),
        ("warmup-only", (0.4, 0.5, 0.7)),
    ):
        for seed, success in enumerate(values):
            write_result(tmp_path, arm, seed, (1, 0), success=success)
    (block,) = comparison_data(study, tmp_path)["evaluations"]
    pairs = {p["other"]: (p["p"], p["p_holm"]) for p in block["differences"] if p["metric"] == "success"}
    assert pairs == {"gigpo": (0.25, 0.5), "grpo": (0.5, 0.5), "warmup-only": (0.25, None)}
