"""What ``repro-rl compare`` refuses before the first job, and the plug-ins that a study names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from repro_rl.errors import ConfigError
from repro_rl.study.definition import load_study, study_of
from repro_rl.study.jobs import final_jobs
from repro_rl.study.preflight import check_study
from support.command import run_command
from support.sokoban import without_progress

ROOMS = "env.settings={train_rooms: 4, validation_rooms: 4, test_rooms: 4, solution: [2, 4], max_steps: 4}"
SMALL = [ROOMS, "train.groups=4", "train.minibatches=1", "eval.tasks=4", "eval.validation_tasks=4"]


def study(*methods, **changes):
    return load_study(None, **{"methods": list(methods) or ["repro", "gigpo"], "set": SMALL, **changes})


def arm(name, *settings):
    return {"name": name, "method": "gigpo", "set": list(settings)}


def test_a_sound_study_is_not_remarked_on():
    assert check_study(study("repro", "gigpo", "warmup-only")) == []


def test_unequal_budgets_are_remarked_on():
    """No environment steps are set: equal iterations are not equal steps."""
    (line,) = check_study(study("repro", "gigpo", set=[*SMALL, "train.env_steps=null"]))
    assert "not equally many environment steps" in line
    assert check_study(study("repro", "gigpo", set=[*SMALL, "train.env_steps=null"], env_steps=100)) == []
    assert check_study(study("repro", "warmup-only", set=[*SMALL, "train.env_steps=null"])) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["eval.validation_tasks=9"], r"eval\.validation_tasks is 9, but the split 'validation' has 4"),
        (["eval.tasks=5"], r"eval\.tasks is 5, but the split 'test' has 4"),
        (["train.split=trian"], r"train\.split: .*did you mean 'train'"),
        (["eval.panel=absent.json"], "absent"),
        (["train.callbacks=['nowhere_21:X']"], "cannot import 'nowhere_21'"),
    ],
)
def test_the_arm_that_would_fail_is_named(settings, words):
    with pytest.raises(ConfigError, match=rf"(?s)^Arm 'wrong': .*{words}"):
        check_study(study("repro", arm("wrong", *settings)))


def test_true_progress_that_an_environment_does_not_tell():
    with without_progress() as name:
        changes = {"set": [f"env.name={name}", *SMALL, "demos.annotator=linear"]}
        assert check_study(study("gigpo", "linear-act", **changes)) == []
        with pytest.raises(ConfigError, match=r"^Arm 'oracle-act': method.shaping is 'oracle'.*'unknowing'"):
            check_study(study("gigpo", "oracle-act", **changes))
        with pytest.raises(ConfigError, match=r"^Arm 'gigpo': demos.annotator is 'oracle'"):
            check_study(study("gigpo", set=changes["set"][:-1]))


def test_prompts_that_no_warm_start_is_taught():
    """Found before the first job: each training says so in its log alone."""
    taught = [*SMALL, "warmup.forward_modes=[progress]"]
    start = {"name": "start", "method": "gigpo", "train": False}
    (line,) = check_study(study("repro", "gigpo", start, set=taught))
    assert line.startswith(
        "Method gigpo has prompts that ask for the action alone. The study's warmup teaches"
    )
    assert "(warmup.forward_modes=progress), so the model reads them untaught" in line
    own = {"name": "own", "method": "gigpo", "set": ["warmup.forward_modes=[action]"]}
    bare = {"name": "bare", "method": "gigpo", "init": "untrained"}
    assert check_study(study("repro", own, bare, set=taught)) == []


def test_prompts_of_a_scoring_that_no_warm_start_is_taught():
    (line,) = check_study(study("grpo", "hcapo", set=SMALL))
    assert line.startswith(
        "Method hcapo also scores answers with prompts of the mode privileged-end. The study's"
    )
    told = [*SMALL, "warmup.forward_modes=[action, privileged-end]"]
    assert check_study(study("grpo", "hcapo", set=told)) == []
    untrained = {"name": "start", "method": "hcapo", "train": False}
    assert check_study(study("grpo", untrained, set=SMALL)) == []


def test_a_model_that_is_given_is_asked_what_it_was_taught(warm):
    def given(*settings):
        # as its warmup; the recipe has another resolution
        return study("repro", {**arm("given", "prompt.resolution=50", *settings), "init": str(warm.model)})

    assert check_study(given()) == []
    with pytest.raises(ConfigError, match=r"^Arm 'given': .* was trained with prompt\.context=window"):
        check_study(given("prompt.context=chat"))
    (told,) = check_study(given("prompt.resolution=10"))
    assert "was trained with prompt.resolution=50, this run has prompt.resolution=10" in told


def test_what_one_job_alone_needs_is_asked_of_that_job():
    """An arm that never validates may have no validation panel; one that is not trained no training panel."""
    never = arm(
        "never", "train.validate_every=0", "warmup.target_success=null", "eval.validation_split=nowhere"
    )
    assert check_study(study("repro", never)) == []
    untrained = {**arm("start", "train.split=nowhere"), "train": False}
    assert check_study(study("repro", untrained)) == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("eval.tasks=3", r"the panel sokoban/test\[3\].*sokoban/test\[4\]"),
        ("eval.split=validation", "the panel"),
        ("eval.rollouts=2", "eval.rollouts 2"),
        ("eval.seed=7", "eval.seed 7"),
        ("eval.temperature=0.9", "eval.temperature 0.9"),
        ("env.settings.seed=1", "the panel"),
        ("env.settings.max_steps=9", "the environment's max_steps 9, 'repro' with 4"),
    ],
)
def test_arms_that_are_evaluated_differently_cannot_be_compared(setting, words):
    with pytest.raises(ConfigError, match=rf"(?s)Arm 'other' would be evaluated with {words}.*one table"):
        check_study(study("repro", arm("other", setting)))


def test_the_evaluation_of_the_study_is_what_is_checked():
    evaluation = {"split": "validation", "tasks": 3, "rollouts": 2, "temperatures": [0, 0.4]}
    found = check_study(study(evaluation=evaluation))
    assert len(found) == 2
    assert any("at eval.temperature=0 all rollouts of a task are the same" in line for line in found)
    assert any("eval.split and eval.validation_split are both 'validation'" in line for line in found)
    with pytest.raises(ConfigError, match=r"eval\.tasks is 9"):
        check_study(study(evaluation={"tasks": 9}))


def test_a_best_checkpoint_needs_validations():
    checkpoints = {"checkpoints": ["best", "last"]}
    with pytest.raises(ConfigError, match=r"Arm 'blind': .*'best'.*train\.validate_every=0"):
        check_study(study("repro", arm("blind", "train.validate_every=0"), evaluation=checkpoints))
    untrained = {**arm("start", "train.validate_every=0"), "train": False}
    assert check_study(study("repro", untrained, evaluation=checkpoints)) == []


def test_the_command_checks_before_its_first_job(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("compare", "-m", "repro", "-m", "gigpo", "-o", "out", *SMALL, "eval.tasks=7")
    status, text = run_command(capsys, monkeypatch, *command)
    assert status == 2
    assert "Arm 'repro': eval.tasks is 7" in text
    assert not Path("out").exists()


def test_warm_starts_report_to_the_trackers_too():
    reporting = load_study(
        None,
        methods=["repro"],
        set=["train.trackers=[tensorboard]", "train.lr=0.1", "train.tracking.project=mine"],
        seeds=[0],
    )
    warm, run = (job.commands for job in final_jobs(reporting, Path("out"), {}))
    assert {"train.trackers=[tensorboard]", "train.tracking.project=mine"} <= set(warm[1])
    assert "train.lr=0.1" not in warm[1]
    assert {"train.trackers=[tensorboard]", "train.lr=0.1"} <= set(run[0])


# Plug-ins -----------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module of a user's that registers the method ``mine-21``."""
    text = "import repro_rl\nrepro_rl.register_method('mine-21', {'credit': 'grpo', 'reflect': False})\n"
    (tmp_path / "plugin_21.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("plugin_21", None)
    return "plugins=[plugin_21]"


def test_an_arm_may_be_a_method_of_a_plugin(plugin):
    with pytest.raises(ConfigError, match="Unknown method 'mine-21'"):
        load_study(None, methods=["mine-21"])
    found = load_study(None, methods=["gigpo", "mine-21"], set=[plugin])
    assert [item.method for item in found.methods] == ["gigpo", "mine-21"]
    assert all(
        plugin in command for job in final_jobs(found, Path("out"), {}) for command in job.commands[:1]
    )


@pytest.mark.parametrize("where", ["recipe", "arm", "study file", "mapping"])
def test_plugins_are_read_wherever_a_study_names_them(plugin, where):
    data = {"methods": ["mine-21"]}
    if where == "recipe":
        Path("r.yaml").write_text(yaml.safe_dump({"base": "sokoban-tiny", "plugins": ["plugin_21"]}))
        data["recipe"] = "r.yaml"
    elif where == "arm":
        data["methods"] = [{"name": "x", "method": "mine-21", "set": [plugin]}]
    else:
        data["set"] = [plugin] if where == "study file" else {"plugins": ["plugin_21"]}
    Path("study.yaml").write_text(yaml.safe_dump(data))
    found = load_study("study.yaml")
    assert [item.method for item in found.methods] == ["mine-21"]


def test_plugins_of_one_arm_cost_it_the_shared_warm_start(plugin):
    def warm_starts(found):
        return {job.name for job in final_jobs(found, Path("out"), {}) if job.stage == "warm"}

    alone = study("gigpo", {"name": "x", "method": "mine-21", "set": [plugin]}, seeds=[0])
    (line,) = check_study(alone)
    assert line.startswith("x: plugins of an arm may change its environment")
    assert warm_starts(alone) == {"warm-seed0", "warm-x-seed0"}
    together = study("gigpo", {"name": "x", "method": "mine-21"}, set=[plugin, *SMALL], seeds=[0])
    assert check_study(together) == []
    assert warm_starts(together) == {"warm-seed0"}


def test_a_study_is_read_again_with_its_plugins(plugin):
    from repro_rl.config import METHODS

    data = load_study(None, methods=["mine-21"], set=[plugin]).model_dump(mode="json")
    sys.modules.pop("plugin_21")
    with METHODS.isolated():
        METHODS._items.pop("mine-21")
        assert [item.method for item in study_of(data).methods] == ["mine-21"]


def test_a_plugin_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"plugins: cannot import 'absent_21'"):
        load_study(None, methods=["repro"], set=["plugins=[absent_21]"])
