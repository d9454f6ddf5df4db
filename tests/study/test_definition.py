"""What a study is: shipped studies, arms, the sweep's grid, mistakes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import yaml

from repro_rl.config import METHODS, load_config, recipe_names
from repro_rl.errors import ConfigError
from repro_rl.study.definition import SPECIAL, grid, load_study, studies
from repro_rl.study.jobs import Job, final_jobs


def shared_start(jobs: Sequence[Job], seed: int) -> set[tuple[str, ...]]:
    return {job.after for job in jobs if job.stage == "final" and job.seed == seed}


@pytest.mark.parametrize("name", studies())
def test_shipped_studies_are_complete(name, tmp_path):
    study = load_study(name)
    assert study.recipe in recipe_names()
    arms = {item.name for item in study.methods}
    wanted = "grpo gigpo hgpo rloo meta l1 l2 repro repro-act oracle oracle-act linear warmup-only"
    ablations = "repro-no-warmup repro-no-alignment repro-no-shaping repro-no-anchor"
    if name.startswith("credit-zoo"):  # rules of credit, not parts of the method
        wanted, ablations = "grpo gigpo hgpo rloo graphgpo g2po gagpo maxrl hcapo repro warmup-only", ""
    if name.startswith("repro-family"):
        wanted = "gigpo graph-shaping repro repro-act repro-act-fixed-judge repro-act-graph repro-act-gated"
        ablations = "graphgpo-judged g2po-judged gagpo-judged oracle-act warmup-only-act"
    assert set(wanted.split()) | set(ablations.split()) <= arms
    jobs = final_jobs(study, tmp_path, {})
    assert len([job for job in jobs if job.stage == "warm"]) == len(study.seeds)
    assert len([job for job in jobs if job.stage == "final"]) == len(arms) * len(study.seeds)
    for seed in study.seeds:
        assert shared_start(jobs, seed) == {(f"warm-seed{seed}",)}
    budgets = {job.env_steps for job in jobs if job.stage == "final"}
    assert budgets == {study.env_steps}


def test_a_study_changes_the_keys_of_its_base(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: sokoban-tiny\n")
    (tmp_path / "a.yaml").write_text(
        "recipe: mine.yaml\nseeds: [1]\nmethods: [gigpo]\nsweep: {seeds: [9], knobs: {method.gamma: [0.5]}}\n"
    )
    (tmp_path / "b.yaml").write_text("base: a.yaml\nmethods: [repro, grpo]\nsweep: {seeds: [8]}\n")
    study = load_study(tmp_path / "b.yaml")
    assert study.recipe == str(tmp_path / "mine.yaml")
    assert ([item.name for item in study.methods], study.seeds) == (["repro", "grpo"], [1])
    assert study.sweep is not None
    assert (study.sweep.seeds, study.sweep.knobs) == ([8], {"method.gamma": [0.5]})
    (tmp_path / "c.yaml").write_text("base: credit-zoo-webshop\nsweep: null\nseeds: [3]\n")
    study = load_study(tmp_path / "c.yaml")
    assert (study.recipe, study.sweep, study.seeds, len(study.methods)) == ("webshop-tiny", None, [3], 37)


def test_mistakes_in_a_base_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: base: No study file at .*b\.yaml"):
        load_study(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml -> .*b\.yaml -> .*a\.yaml is circular"):
        load_study(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("base: b\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: base: Unknown study 'b'.*write base: b\.yaml"):
        load_study(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: credit-zo\n")
    with pytest.raises(ConfigError, match=r"^'webshop-tiny' is a recipe, not a study: give -c web"):
        load_study("webshop-tiny")
    with pytest.raises(ConfigError, match=r"Unknown study 'credit-zo'.*credit-zoo"):
        load_study(tmp_path / "a.yaml")


def test_arms_are_selected_with_their_settings(tmp_path):
    study = load_study("sokoban", methods=["l2", "gigpo-95", "gigpo", "g2po"])
    assert [(item.name, item.method, item.set) for item in study.methods] == [
        ("l2", "l2", ["method.beta=1"]),
        ("gigpo-95", "gigpo", ["method.gamma=0.95"]),
        ("gigpo", "gigpo", []),
        ("g2po", "g2po", []),  # no arm of that study, but a method
    ]
    assert load_study("sokoban", methods=["repro", "repro-no-shaping"]).methods[1].tuned_as == "repro"
    with pytest.raises(ConfigError, match=r"repro-no-shaping has the settings of the arm 'repro'"):
        load_study("sokoban", methods=["repro-no-shaping"])


def test_references_that_are_not_selected_are_left_out():
    study = load_study("repro-family", methods=["repro-act", "repro-act-unpooled"])
    assert study.references == ["repro-act"]
    assert study.methods[1].set == ["method.judge_pool=none"]
    assert load_study("repro-family", methods=["oracle-act"]).compared_with() == ["oracle-act"]
    with pytest.raises(ConfigError, match=r"unknown arm 'gigpo'"):
        load_study("repro-family", methods=["oracle-act"], references=["gigpo"])


def test_every_method_and_special_arm_goes_by_its_name():
    study = load_study(None, methods=[*METHODS.names(), *SPECIAL])
    by_name = {item.name: item for item in study.methods}
    assert by_name["gigpo"].method == "gigpo"
    assert not by_name["warmup-only"].train
    assert by_name["repro-no-warmup"].init == "untrained"
    assert by_name["repro-no-warmup"].set == ["method.rehearsal=0"]  # or it would be taught all the same
    assert by_name["repro-no-rehearsal"].init == "warm"


def test_the_grid_holds_only_knobs_that_matter():
    sweep = {
        "seeds": [9],
        "knobs": {"method.gamma": [0.5, 0.9], "method.beta": [1, 2], "method.advantage_on": ["all", "split"]},
    }
    study = load_study(None, methods=["grpo", "gigpo", "repro", "oracle-act", "warmup-only"], sweep=sweep)
    sizes = {item.name: len(grid(study, item)) for item in study.methods}
    assert sizes == {"grpo": 1, "gigpo": 2, "repro": 8, "oracle-act": 4, "warmup-only": 0}


@pytest.mark.parametrize(
    ("changes", "needles"),
    [
        ({"methods": ["repo"]}, ["Unknown method 'repo'", "did you mean 'repro'"]),
        ({"methods": ["repro", "repro"]}, ["method repro is there twice"]),
        ({"methods": [{"name": "a/b", "method": "repro"}]}, ["'a/b'", "folder"]),
        ({"methods": [{"name": "x", "method": "repro", "sett": []}]}, ["sett", "did you mean 'set'"]),
        (
            {"methods": [{"name": "x", "method": "repro", "set": ["train.lrr=1"]}]},
            ["Arm 'x'", "did you mean 'lr'"],
        ),
        ({"set": ["method.alignment=orcale"]}, ["method.alignment: unknown source", "did you mean 'oracle'"]),
        ({"set": ["seed=3"]}, ["'seed'", "use seeds"]),
        ({"references": ["gigpo"]}, ["unknown arm 'gigpo'"]),
        ({"seeds": [1, 100], "sweep": {"knobs": {"train.lr": [0.1]}}}, ["share [100]"]),
        ({"sweep": {"knobs": {"train.lr": [0.1]}, "set": ["demos.expert=1"]}}, ["sweep.set", "warm start"]),
        ({"methods": [{"name": "x", "method": "repro", "tuned_as": "y"}]}, ["of the arm 'y'"]),
    ],
)
def test_mistakes_in_a_study_are_named(changes, needles):
    with pytest.raises(ConfigError) as error:
        load_study(None, **({"methods": ["repro"]} | changes))
    for needle in needles:
        assert needle in str(error.value)


def test_an_unknown_study_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("methods: [repro]\n")
    with pytest.raises(ConfigError, match=r"To use the file mine\.yaml, give its whole name"):
        load_study("mine")
    with pytest.raises(ConfigError, match="did you mean 'sokoban'"):
        load_study("sokobann")
    with pytest.raises(ConfigError, match="No study file"):
        load_study(str(tmp_path / "none.yaml"))


def test_an_unknown_arm_of_a_study_is_named_with_its_arms(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: sokoban-tiny\nmethods: [{name: slow, method: gigpo}, repro]\nseeds: [0]\n")
    assert load_study(str(file), methods=["slow", "grpo"]).methods[0].method == "gigpo"
    with pytest.raises(ConfigError, match=r"Unknown method 'slw'(?s:.*)Its arms.*: slow, repro\.$"):
        load_study(str(file), methods=["slw"])
    with pytest.raises(ConfigError, match=r"unknown source(?!(?s:.*)Its arms)"):
        load_study(str(file), methods=["slow"], set=["method.alignment=orcale"])


def test_a_file_with_a_base_takes_its_arms_and_the_references_among_them(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: credit-zoo-alfworld\n"
        "methods: [gigpo, gigpo-std, {name: mine, method: gigpo, set: [method.credit=pace]}]\n"
    )
    study = load_study(path)
    assert study.references == study.compared_with() == ["gigpo"]
    assert [(item.name, item.set, item.tuned_as) for item in study.methods] == [
        ("gigpo", [], None),
        ("gigpo-std", ["method.normalize=mean_std"], "gigpo"),
        ("mine", ["method.credit=pace"], None),
    ]
    path.write_text("base: credit-zoo\nmethods: [{name: mine, method: gigpo}, pace]\n")
    assert load_study(path).compared_with() == ["mine"]
    path.write_text("base: credit-zoo\nmethods: [pace]\nreferences: [gigpo]\n")
    with pytest.raises(ConfigError, match=r"references: unknown arm 'gigpo'"):
        load_study(path)


@pytest.mark.parametrize(
    ("name", "part", "setting"),
    [
        ("mt_grpo", "credit rule", "method.credit=mt_grpo"),
        ("cispo", "policy loss", "train.loss.name=cispo"),
        ("graph_value", "source of progress", "method.shaping=graph_value"),
    ],
)
def test_a_part_of_a_method_is_no_arm_and_the_message_says_what_to_write(name, part, setting):
    with pytest.raises(ConfigError, match=f"'{name}' is a {part}, not a method") as error:
        load_study("sokoban", methods=["gigpo", name])
    arm = re.search(r"\{name: .*?\]\}", str(error.value)).group()
    assert arm == f"{{name: {name}, method: gigpo, set: [{setting}]}}"
    assert load_study(None, methods=[yaml.safe_load(arm)]).methods[0].name == name
    with pytest.raises(ConfigError, match=f"'{name}' is a {part}, not a method"):
        load_config(None, [f"method.name={name}"])
