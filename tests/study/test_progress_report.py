"""The analysis of the progress signal: recorded sets, and means over runs."""

import pytest

from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.credit import CreditSettings
from repro_rl.rollout.record import write_records
from repro_rl.study.progress_report import analyse, measure_set, over_runs
from repro_rl.study.recorded import (
    EpisodeSet,
    RunSettings,
)
from support.progress_records import (
    LOST,
    WON,
    episodes,
    make_run,
    record,
)


def test_several_runs_of_a_method_are_averaged_over_runs():
    sets = []
    for run, last in (("x", 80), ("y", 60)):
        lost = record(False, [last, last, last], [0.5, 0.6, 0.7], task="b")
        episode_set = EpisodeSet(run, "eval last", [], RunSettings("repro", run))
        sets.append(measure_set(episode_set, episodes(WON, lost), resamples=20))
    other = measure_set(
        EpisodeSet("z", "eval last", [], RunSettings("grpo", "0")), episodes(WON, LOST), resamples=20
    )
    (method,) = over_runs([*sets, other])
    value = method["series"]["online"]["measures"]["final_failure"]
    # t of one degree of freedom: 12.706 * (14.14 / sqrt 2)
    assert (value["value"], value["runs"]) == (70, 2)
    assert (value["low"], value["high"]) == (
        pytest.approx(70 - 127.06, abs=0.01),
        pytest.approx(197.06, abs=0.01),
    )


def test_runs_on_other_panels_are_not_averaged():
    sets = [
        measure_set(
            EpisodeSet(run, "eval last", [], RunSettings("repro", run), panel),
            episodes(WON, record(False, [last, last, last], [0.5, 0.6, 0.7], task="b")),
            resamples=20,
        )
        for run, panel, last in (
            ("1", "sokoban/test[8]@aa", 80),
            ("2", "sokoban/test[8]@bb", 10),
            ("3", "sokoban/test[8]@aa", 60),
        )
    ]
    (method,) = over_runs(sets)
    assert (method["panel"], method["runs"]) == ("sokoban/test[8]@aa", ["1", "3"])
    assert method["series"]["online"]["measures"]["final_failure"]["value"] == 70


def test_the_same_files_give_the_same_numbers(tmp_path):
    run = make_run(tmp_path / "run")
    first = analyse([run], ["last"], training=False, resamples=50)
    assert first == analyse([run], ["last"], training=False, resamples=50)
    assert [row["name"] for row in first["sets"]] == ["eval last"]
    alone = analyse([run / "trajectories" / "eval-last.jsonl.gz"], resamples=50)["sets"][0]
    assert alone["series"]["online"]["measures"] == first["sets"][0]["series"]["online"]["measures"]


def test_broken_episodes_and_a_missing_config_cost_no_analysis(tmp_path):
    folder = tmp_path / "run"
    rows = [WON, LOST, record(False, [10], [0.1], error="boom"), {**WON, "steps": []}]
    write_records(folder / "trajectories" / "eval-last.jsonl.gz", rows)
    (row,) = analyse([folder], resamples=20)["sets"]
    assert (row["episodes"], row["method"]) == (2, "unknown method")
    assert "config.yaml is missing: a discount of 0.5 is assumed." in row["warnings"]
    assert row["gamma"] == CreditSettings().gamma == 0.5
    assert any("Only 1 successes" in line for line in row["warnings"])
