"""The analysis of the progress signal: every measure by hand, then a whole recorded run."""

import gzip
import json
import math
import random

import pytest
import yaml
from typer.testing import CliRunner

from repro_rl.cli.app import app
from repro_rl.cli.entry import main  # noqa: F401  adds the commands
from repro_rl.credit import CreditSettings, RewardSettings, assign_credit
from repro_rl.errors import DataError
from repro_rl.report.progress_tables import closer
from repro_rl.report.progress_tables import over_runs as over_runs_tables
from repro_rl.rollout.record import trajectory_record, write_records
from repro_rl.study.agreement import agreement, references
from repro_rl.study.judged import Source, clusters, find_sources, judged, read_episodes
from repro_rl.study.progress import progress_quality, spearman
from repro_rl.study.progress_measures import compare_series, measures
from repro_rl.study.progress_report import analyse, measure_set, over_runs
from repro_rl.study.reliability import bin_of, reliability
from repro_rl.study.resample import Resampler, interval, ratio
from repro_rl.types import Completion, Group, Reflection, Step, Trajectory

HOSTILE = "<img src=x onerror=alert(1)>|`*\u202e"


def record(won, online, truth, values=None, *, task="t", rollout=0, rewards=None, anchors=None, **more):
    size = len(online)
    rewards = rewards or [0.0] * (size - 1) + [10.0 * won]
    steps = [
        {"t": t + 1, "online": online[t], "truth": truth[t], "env_reward": rewards[t],
         "anchor": anchors[t] if anchors else f"s{t}", "terms": {}, "advantage": 0.0}
        for t in range(size)
    ]  # fmt: skip
    reflection = None if values is None else {"values": values}
    return {"task_id": task, "rollout": rollout, "iteration": 1, "won": won, "error": None, "steps": steps,
            "reflection": reflection, **more}  # fmt: skip


WON = record(True, [20, 10, 60, 100], [0.25, 0.5, 0.75, 1.0], [30, 40, 90, 100], task="a")
LOST = record(False, [50, 80, 90], [0.2, 0.4, 0.0], [10, 20, 0], task="b")
SOURCE = Source("run", "repro", "0", "eval last", [])


def episodes(*records, source=SOURCE):
    return [judged(one, source) for one in records]


def sampler(found, resamples=100):
    return Resampler(clusters(found)[0], resamples=resamples)


def some_records(count=40, seed=0):
    rng = random.Random(seed)

    def value():
        return rng.choice([None, *range(0, 101, 10)])

    rows = []
    for number in range(count):
        size = rng.randrange(1, 7)
        rows.append(
            record(
                rng.random() < 0.5,
                [value() for _ in range(size)],
                [rng.choice([None, 0.0, 0.2, 0.5, 0.9]) for _ in range(size)],
                [rng.randrange(0, 101, 25) for _ in range(size)] if rng.random() < 0.8 else None,
                task=f"t{number % 25}",
            )
        )
    return rows


# Resampling ----------------------------------------------------------------------------------------


def test_resamples_draw_whole_clusters_and_place_0_is_the_sample():
    drawn = Resampler(["a", "b", "a"], resamples=50, seed=1)
    totals = drawn.totals({"x": [1.0, 10.0, 2.0], "n": [1.0, 1.0, 1.0]})
    assert (totals["x"][0], totals["n"][0]) == (13.0, 3.0)
    # two clusters drawn of {a: 3, b: 10}: aa, ab or bb
    assert set(totals["x"][1:]) == {6.0, 13.0, 20.0}
    again = Resampler(["a", "b", "a"], resamples=50, seed=1)
    assert (again.counts == drawn.counts).all()


def test_rank_correlation_of_a_resample_is_that_of_the_repeated_data():
    rng = random.Random(3)
    pairs = [(rng.randrange(5), rng.randrange(5)) for _ in range(12)]
    owners = [n // 2 for n in range(12)]
    drawn = Resampler(range(6), resamples=20)
    values = drawn.spearman(owners, pairs)
    for row, value in zip(drawn.counts, values, strict=True):
        repeated = [pair for owner, pair in zip(owners, pairs, strict=True) for _ in range(row[owner])]
        assert value == pytest.approx(spearman(repeated))
    assert math.isnan(drawn.spearman([0, 1], [(1, 1), (2, 2)])[0])
    assert math.isnan(drawn.spearman([0, 1, 2], [(1, 1), (1, 2), (1, 3)])[0])


def test_intervals_need_a_measure_that_nearly_every_resample_defines():
    import numpy as np

    values = np.array([0.5] + [0.4] * 50 + [0.6] * 50)
    assert interval(values, 100) == {"value": 50.0, "low": pytest.approx(40), "high": pytest.approx(60)}
    values[1:20] = math.nan
    assert interval(values) == {"value": 0.5, "low": None, "high": None}
    assert interval(np.array([math.nan]))["value"] is None
    assert interval(np.array([0.5])) == {"value": 0.5, "low": None, "high": None}  # one cluster
    assert np.isnan(ratio(np.array([1.0]), np.array([0.0]))).all()


# Measures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["online", "retrospective", "truth"])
def test_values_are_those_of_the_evaluation(which):
    rows = some_records()
    found, quality = measures(episodes(*rows), which, sampler(episodes(*rows))), progress_quality(rows, which)
    shared = set(found) & set(quality)
    assert len(shared) == (17 if which == "truth" else 19)  # no gains of the truth against itself
    for key in shared:
        assert found[key]["value"] == pytest.approx(quality[key]), key
    for part in ("success", "failure"):
        assert found[f"spearman_{part}"]["count"] == quality[f"spearman_{part}_episodes"]


def test_intervals_hold_the_value_and_are_strict_json():
    rows = episodes(*some_records())
    for value in measures(rows, "retrospective", sampler(rows)).values():
        if value["low"] is not None:
            assert value["low"] <= value["high"]
    assert measures([], "online", Resampler([])) == {}
    json.dumps(measure_set(SOURCE, rows, resamples=20), allow_nan=False)
    json.dumps(measure_set(SOURCE, [], resamples=20), allow_nan=False)


def test_constant_series_are_counted_apart():
    flat = record(False, [0, 0, 0], [0.1, 0.2, 0.3], task="c")
    short = record(False, [0, 0], [0.1, 0.2], task="d")
    rows = episodes(LOST, flat, short)
    found = measures(rows, "online", sampler(rows))
    assert found["constant_failure"]["value"] == 1 / 2  # of LOST and flat; two steps are too few
    assert found["spearman_failure"]["count"] == 1


def test_paired_comparison_by_hand():
    gap = record(True, [None, 50, 100], [0.5, 0.5, 1.0], [0, 70, 100], task="c")
    rows = episodes(WON, LOST, gap)
    found = compare_series(rows, sampler(rows))
    # online: 5 40 15 0, 30 40 90, then 0 0 on the steps that have both
    # retrospective: 5 10 15 0, 10 20 0, then 20 0
    assert found["mae"]["online"] == pytest.approx(220 / 9)
    assert found["mae"]["retrospective"] == pytest.approx(80 / 9)
    assert found["mae"]["value"] == pytest.approx(-140 / 9)
    assert found["mae_failure"]["value"] == pytest.approx((30 - 160) / 3)
    # in LOST -.5 against 1: see test_progress_quality
    assert found["spearman_failure"]["value"] == pytest.approx(1.5)
    assert found["spearman_success"]["value"] == pytest.approx(1.0 - 0.8)
    assert found["spearman_success"]["count"] == 1  # two steps are too few in gap
    alone = episodes(record(True, [1, 2], [0.1, 1.0]))
    assert compare_series(alone, sampler(alone)) == {}


def test_pairing_makes_a_constant_difference_certain():
    rows = episodes(
        *(
            record(False, [v + 10, v + 10, v + 10], [v / 100] * 3, [v + 5] * 3, task=f"t{v}")
            for v in range(0, 80, 5)
        )
    )
    mae = compare_series(rows, sampler(rows))["mae"]
    assert (mae["value"], mae["low"], mae["high"]) == pytest.approx((-5, -5, -5))


# Agreement -----------------------------------------------------------------------------------------

PAIR = [  # one task: won in two steps, and lost; both begin in the state s
    record(True, [None, None], [0.5, 1.0], [40, 100], anchors=["s", "x"], task="p", rollout=0),
    record(False, [None, None], [0.0, 0.0], [10, 10], anchors=["s", "y"], task="p", rollout=1),
]


def test_outcome_advantages_by_hand():
    found = references(episodes(*PAIR), 0.5)
    # return-to-go in s: .5 * 10 and 0, mean 2.5; x and y were seen once
    assert found["outcome"] == [[pytest.approx(2.5), 0.0], [pytest.approx(-2.5), 0.0]]
    assert found["truth"] == [[0.5, 0.5], [0.0, 0.0]]
    assert found["trained"] == found["composite"] == [[None, None], [None, None]]  # not trained on
    assert references(episodes(PAIR[0]), 0.5)["outcome"] == [[None, None]]  # nobody to compare with


def test_agreement_by_hand():
    rows = episodes(*PAIR)
    found = references(rows, 0.5)
    # gains 40 60 and 10 0 against + 0 and - 0: one agrees, one does not, one is flat, one has no sign
    value = agreement(rows, "retrospective", found["outcome"], sampler(rows))
    assert [value[key] for key in ("steps", "flat", "silent", "compared", "agree")] == [4, 1, 1, 2, 1]
    assert value["share"]["value"] == 0.5
    assert value["chance"] == pytest.approx(0.5)  # all gains +, half of the advantages
    assert value["kappa"]["value"] == pytest.approx(0.0)
    # against the truth's gains + + and 0 0
    value = agreement(rows, "retrospective", found["truth"], sampler(rows))
    assert [value[key] for key in ("flat", "silent", "compared", "agree")] == [1, 1, 2, 2]
    assert value["kappa"]["value"] is None  # only + on both sides: nothing beyond chance can be shown
    value = agreement(rows, "retrospective", found["truth"], sampler(rows), before_end=True)
    assert (value["steps"], value["compared"], value["silent"]) == (2, 1, 1)
    assert agreement(rows, "online", found["truth"], sampler(rows)) is None


def trajectory(won, values, *, task, rollout, anchors):
    completion = Completion((), (), [], "", True)
    steps = [
        Step(t + 1, "", "", anchors[t], "", completion, "a", None, (), True,
             10.0 * (won and t == len(values) - 1), 0.5)
        for t in range(len(values))
    ]  # fmt: skip
    reflection = Reflection("", completion, tuple(values), ())
    return Trajectory(task, rollout, HOSTILE, steps, won, float(won), False, reflection=reflection)


def trained(omega=1.0):
    """Two groups of one task in one iteration, credited as in training."""
    groups = [
        Group("p", [
            trajectory(True, [40, 100], task="p", rollout=0, anchors=["s", "x"]),
            trajectory(False, [70, 10], task="p", rollout=1, anchors=["s", "y"]),
        ]),
        Group("p", [
            trajectory(False, [30, 20], task="p", rollout=2, anchors=["s", "z"]),
            trajectory(False, [20, 30], task="p", rollout=3, anchors=["s", "z"]),
        ]),
    ]  # fmt: skip
    reward = RewardSettings(shaping="retrospective", beta=10.0, alignment="none", anchor="none")
    settings = CreditSettings(gamma=0.5, omega=omega)
    assign_credit(groups, reward, "gigpo", settings, expects_online=False)
    return [trajectory_record(t, 3) for group in groups for t in group.trajectories]


def test_recorded_training_gives_back_its_step_advantages():
    source = Source("run", "repro", "0", "training", [], gamma=0.5, group_size=2)
    rows = episodes(*trained(), source=source)
    assert [row.group for row in rows] == ["3/p/0", "3/p/0", "3/p/1", "3/p/1"]
    found = references(rows, 0.5)
    # composite in s: 4 + .5 (10 + 6) = 12 and 7 - .5 * 6 = 4, then 3 - .5 and 2 + .5
    assert [row[0] for row in found["composite"]] == pytest.approx([4.0, -4.0, 0.0, 0.0])
    assert [row[0] for row in found["outcome"]] == pytest.approx([2.5, -2.5, 0.0, 0.0])
    episode_part = [row.advantage for row in episodes(*trained(omega=0.0), source=source)]
    for all_of_it, part, step in zip(found["trained"], episode_part, found["composite"], strict=True):
        assert all_of_it == pytest.approx([a + b for a, b in zip(part, step, strict=True)])
    # without the group's size both groups are one: returns in s 5 0 0 0
    one = references(episodes(*trained(), source=Source("run", "repro", "0", "training", [])), 0.5)
    assert [row[0] for row in one["outcome"]] == pytest.approx([3.75, -1.25, -1.25, -1.25])


# Reliability ---------------------------------------------------------------------------------------


def test_bins_and_their_edges():
    assert [bin_of(value) for value in (0.0, 0.09, 0.1, 0.3, 0.7, 0.99, 1.0)] == [0, 0, 1, 3, 7, 9, 9]


def test_reliability_by_hand():
    rows = episodes(
        record(True, [12, 18, 100], [0.2, 0.6, 1.0], task="a"), record(False, [15, 50], [0.1, 0.3], task="b")
    )
    value = reliability(rows, "online", "truth", sampler(rows))
    first, middle, last = value["bins"]
    assert (first["low"], first["steps"], first["episodes"]) == (10, 3, 2)
    assert first["said"] == pytest.approx(15)
    assert first["met"]["value"] == pytest.approx(30)
    assert (middle["met"]["value"], last["met"]["value"]) == (pytest.approx(30), pytest.approx(100))
    assert value["ece"]["value"] == pytest.approx((3 * 15 + 20 + 0) / 5)
    # success: steps before the last, 12 18 of the win and 15 of the loss
    value = reliability(rows, "online", "success", sampler(rows))
    assert value["steps"] == 3
    assert value["bins"][0]["met"]["value"] == pytest.approx(200 / 3)
    assert value["ece"]["value"] == pytest.approx(200 / 3 - 15)
    assert reliability(rows, "retrospective", "truth", sampler(rows)) is None


# Sets, runs, files -----------------------------------------------------------------------------------


def test_tasks_are_resampled_where_they_have_several_episodes():
    assert clusters(episodes(WON, LOST)) == ([0, 1], "episodes")
    assert clusters(episodes(WON, LOST, WON)) == (["a", "b", "a"], "tasks")


def test_several_runs_of_a_method_are_averaged_over_runs():
    sets = []
    for run, last in (("x", 80), ("y", 60)):
        lost = record(False, [last, last, last], [0.5, 0.6, 0.7], task="b")
        source = Source(run, "repro", run, "eval last", [])
        sets.append(measure_set(source, episodes(WON, lost), resamples=20))
    other = measure_set(Source("z", "grpo", "0", "eval last", []), episodes(WON, LOST), resamples=20)
    (method,) = over_runs([*sets, other])
    value = method["series"]["online"]["measures"]["final_failure"]
    # t of one degree of freedom: 12.706 * (14.14 / sqrt 2)
    assert (value["value"], value["runs"]) == (70, 2)
    assert (value["low"], value["high"]) == (
        pytest.approx(70 - 127.06, abs=0.01),
        pytest.approx(197.06, abs=0.01),
    )


def make_run(folder, *, method="repro"):
    rng = random.Random(5)
    rows = []
    for number in range(60):
        won = number % 3 == 0
        size = 4 + number % 3
        truth = [(t + 1) / size if won else 0.6 - 0.1 * t for t in range(size)]
        values = [min(100, max(0, round(100 * p + rng.uniform(-8, 8)))) for p in truth]
        online = [rng.randrange(0, 101, 10) for _ in truth]
        rows.append(record(won, online, truth, values if number % 10 else None, task=f"{HOSTILE}{number}"))
    folder.mkdir(parents=True)
    settings = {"method": {"name": method, "gamma": 0.5}, "train": {"group_size": 2}, "seed": 4}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    for name in ("last", "warm-start"):
        write_records(folder / "trajectories" / f"eval-{name}.jsonl.gz", rows)
    write_records(folder / "trajectories" / "iteration-00003.jsonl.gz", trained())
    return folder


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


def test_the_same_files_give_the_same_numbers(tmp_path):
    run = make_run(tmp_path / "run")
    first = analyse([run], ["last"], training=False, resamples=50)
    assert first == analyse([run], ["last"], training=False, resamples=50)
    assert [row["name"] for row in first["sets"]] == ["eval last"]
    alone = analyse([run / "trajectories" / "eval-last.jsonl.gz"], resamples=50)["sets"][0]
    assert alone["series"]["online"]["measures"] == first["sets"][0]["series"]["online"]["measures"]


def test_what_cannot_be_read_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(DataError, match="no such run folder"):
        find_sources([tmp_path / "nothing"])
    with pytest.raises(DataError, match="evaluation 'best'"):
        find_sources([run], ["best"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no recorded episodes"):
        find_sources([tmp_path / "empty"])
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(b'{"task_id": "q", "steps": [1, 2]}\n'))
    with pytest.raises(DataError, match="no trajectory record"):
        read_episodes(find_sources([broken])[0])
    broken.write_bytes(gzip.compress(b"[1]\n"))
    with pytest.raises(DataError):
        read_episodes(find_sources([broken])[0])


def test_broken_episodes_and_a_missing_config_cost_no_analysis(tmp_path):
    folder = tmp_path / "run"
    rows = [WON, LOST, record(False, [10], [0.1], error="boom"), {**WON, "steps": []}]
    write_records(folder / "trajectories" / "eval-last.jsonl.gz", rows)
    (row,) = analyse([folder], resamples=20)["sets"]
    assert (row["episodes"], row["method"]) == (2, "unknown method")
    assert any("config.yaml is missing" in line for line in row["warnings"])
    assert any("Only 1 successes" in line for line in row["warnings"])


def test_the_page_of_several_runs_shows_means_and_asks_about_equal_seeds(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    data = analyse(runs, ["last"], training=False, resamples=20)
    tables = over_runs_tables(data)
    assert [table.title for table in tables] == [
        "repro, eval last: mean over 2 runs",
        "repro, eval last: retrospective minus online",
    ]
    assert "are they two runs?" in tables[0].note
    error = next(row for row in tables[0].rows if row[0] == "Error")
    one = data["sets"][0]["series"]["retrospective"]["measures"]["mae"]["value"]
    assert error[2].startswith(f"{one:.1f} [")
    assert [row[0] for row in closer(data).rows] == ["one, eval last", "two, eval last"]
