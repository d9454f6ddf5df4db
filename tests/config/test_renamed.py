"""Settings and metrics by the names that they had in version 0.1.0."""

import json
import warnings

import pytest

from repro_rl.config import DemosSection, load_config, parse_config
from repro_rl.config.loading import load_run_config
from repro_rl.config.renamed import RENAMED
from repro_rl.config.run import RunConfig
from repro_rl.config.values import type_of
from repro_rl.errors import ConfigError
from repro_rl.files import read_rows
from repro_rl.files.names import OLD_METRICS
from repro_rl.run.evaluations import read_evaluation


def test_every_new_name_is_a_setting_and_no_old_one_is():
    for old, new in RENAMED.items():
        assert type_of(RunConfig, new.split(".")) is not None, new
        assert type_of(RunConfig, old.split(".")) is None, old


@pytest.mark.parametrize(
    "override",
    [
        "demos.slips=[0.1, 0.2]",
        "demos={slips: [0.1, 0.2]}",
        ("demos.slips", [0.1, 0.2]),
        ("demos", {"slips": [0.1, 0.2]}),
    ],
)
def test_an_old_name_in_an_override_means_the_new_setting_and_warns(override):
    """The recipe has a value of its own under the new name: it gives way."""
    assert load_config("sokoban-tiny").demos.mistakes == (0.0,)
    with pytest.warns(UserWarning, match=r"^demos\.slips is called demos\.mistakes now\.$"):
        assert load_config("sokoban-tiny", [override]).demos.mistakes == (0.1, 0.2)


def test_an_old_name_in_a_file_changes_what_its_base_says(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: sokoban-tiny\ndemos: {slips: [0.3]}\ntrain: {eval_every: 7}\n")
    with pytest.warns(UserWarning, match="is called") as caught:
        config = load_config(file)
    assert (config.demos.mistakes, config.train.validate_every) == ((0.3,), 7)
    assert sorted(str(warning.message) for warning in caught) == [
        "demos.slips is called demos.mistakes now.",
        "train.eval_every is called train.validate_every now.",
    ]


def test_both_names_in_one_section_are_refused():
    with pytest.raises(ConfigError, match=r"demos\.noise and demos\.labelled_mistakes are the same setting"):
        parse_config({"demos": {"noise": [0.5], "labelled_mistakes": [0.5]}})


def test_a_run_folder_of_an_older_version_is_read_without_a_word(tmp_path):
    (tmp_path / "config.yaml").write_text("alarms: {max_length_ratio: 0.5}\ntrain: {eval_every: 3}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_run_config(tmp_path)
    assert (config.alarms.max_cut_off, config.train.validate_every) == (0.5, 3)


def test_no_section_knows_an_old_name():
    for field in ("slips", "noise"):
        assert field not in DemosSection.model_fields


def test_old_metrics_are_read_by_their_present_names(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = dict(zip(OLD_METRICS, range(10), strict=False))
    path.write_text(json.dumps({"iteration": 4, **values}) + "\n")
    (row,) = read_rows(path).rows
    assert row["validation/success"] == values["eval/success"]
    assert row["rollout/shortened_prompts"] == values["rollout/truncated_prompts"]
    assert set(row) == {"iteration", *OLD_METRICS.values()}


def test_reasons_of_an_older_evaluation_have_their_present_name(tmp_path):
    path = tmp_path / "last.json"
    path.write_text(json.dumps({"success": 0.5, "digest": "d", "failures": {"no room": 2}}))
    data = read_evaluation(path)
    assert data["error_reasons"] == {"no room": 2}
    assert "failures" not in data
