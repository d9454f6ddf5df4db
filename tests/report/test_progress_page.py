"""The pages of the progress analysis: a recorded run through the command, and several runs."""

import json

from typer.testing import CliRunner

import repro_rl.cli.commands  # noqa: F401  adds the commands
from repro_rl.cli.app import app
from repro_rl.files import write_json
from repro_rl.report.progress_tables import closeness_table, method_tables
from repro_rl.study.progress_report import analyse
from support.progress_records import (
    HOSTILE,
    make_run,
)


def test_a_recorded_run_end_to_end(tmp_path):
    run = make_run(tmp_path / "<b>run", method=HOSTILE)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["progress", str(run), "--resamples", "100", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "retrospective progress is closer" in result.output
    data = json.loads((out / "progress.json").read_text())
    assert [row["name"] for row in data["sets"]] == ["eval warm-start", "eval last", "training"]
    last, training = data["sets"][1:]
    assert last["paired"]["mae"]["high"] < 0
    assert (training["gamma"], training["resampled"], training["clusters"]) == (0.5, "tasks", 1)
    agreed = training["series"]["retrospective"]["agreement"]
    assert agreed["outcome"]["all"]["silent"] == 6  # two of eight steps have a sign
    # in s as above; in z -1 and 1, which the gains alone decide: this is what is circular
    assert [agreed["composite"]["all"][key] for key in ("compared", "agree")] == [4, 3]
    assert any("Only 0 online" in w or "No online" in w for w in training["warnings"])
    page = (out / "progress.html").read_text()
    assert "<img" not in page
    assert "<b>run" not in page
    assert "&lt;b&gt;run" in page
    assert "\u202e" not in page
    assert "<script" not in page
    assert page.count("<svg class=") >= 10
    text = (out / "progress.md").read_text()
    assert "<img" not in text.replace("\\<", "")
    assert "\u202e" not in text
    assert "Do gains point where the advantages point?" in text


def test_the_page_of_several_runs_shows_means_and_asks_about_equal_seeds(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    data = analyse(runs, ["last"], training=False, resamples=20)
    tables = method_tables(data)
    assert [table.title for table in tables] == [
        "repro, eval last: mean over 2 runs",
        "repro, eval last: retrospective minus online",
    ]
    assert "are they two runs?" in tables[0].note
    error = next(row for row in tables[0].rows if row[0] == "Error")
    one = data["sets"][0]["series"]["retrospective"]["measures"]["mae"]["value"]
    assert error[2].startswith(f"{one:.1f} [")
    assert [row[0] for row in closeness_table(data).rows] == ["one, eval last", "two, eval last"]


def test_means_on_several_panels_name_theirs(tmp_path):
    runs = [make_run(tmp_path / str(number)) for number in range(5)]
    for number, run in enumerate(runs):
        panel = f"sokoban/test[8]@{number // 2}"
        write_json(run / "eval" / "last.json", {"success": 0.5, "digest": panel, "panel": panel})
    data = analyse(runs, ["last"], training=False, resamples=20)
    assert [table.title for table in method_tables(data)][::2] == [
        "repro, eval last on sokoban/test[8]@0: mean over 2 runs",
        "repro, eval last on sokoban/test[8]@1: mean over 2 runs",
    ]
