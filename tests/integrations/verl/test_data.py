"""The data files for verl: task rows follow our schedule and panels, supervised rows are the warmup's."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from repro_rl import make
from repro_rl.config import DemosSection, load_config
from repro_rl.demos import collect_demos, load_demos, save_demos
from repro_rl.errors import ConfigError, DataError, MissingDependencyError
from repro_rl.integrations.verl.data import Row, check_rows, sft_rows, task_rows, write_parquet
from repro_rl.integrations.verl.launch import run_verl
from repro_rl.policy.loading.codec import load_codec
from repro_rl.rollout import EnvPool
from repro_rl.run.setup import Setup, set_up
from repro_rl.train import ImitationData, PromptModes, hold_out, imitation_data, task_schedule
from support.command import run_command
from support.verl_cases import CPU_RECIPE
from support.verl_sessions import GROUPS, setup_of


def test_rows_follow_the_schedule_and_carry_the_panels(warm):
    setup = setup_of(warm)
    train, validation = task_rows(setup)
    ids = setup.panel("train").ids
    assert [row["task"] for row in train] == [
        task for it in range(1, 5) for task in task_schedule(ids, setup.config.seed, it, GROUPS)
    ]
    assert [(row["iteration"], row["group"]) for row in train[:4]] == [(1, 0), (1, 1), (1, 2), (2, 0)]
    assert [row["extra_info"]["index"] for row in train] == list(range(12))
    panel = setup.validation_panel()
    assert [row["task"] for row in validation] == list(panel)
    assert {row["data_source"] for row in validation} == {panel.label()}
    assert {row["digest"] for row in validation} == {panel.digest}
    assert {row["stage"] for row in train} == {"train"}
    labels = check_rows(setup, train[0], validation[0])
    assert labels == [setup.panel("train").label(), panel.label()]


def test_rows_of_other_tasks_are_refused(warm):
    setup = setup_of(warm)
    train, validation = task_rows(setup)
    other = replace(setup, pool=EnvPool("sokoban", {**setup.config.env.settings, "seed": 5}))
    with pytest.raises(DataError, match=r"digest.*repro-rl verl data"):
        check_rows(other, train[0], validation[0])


def own_warmup(setup: Setup, warm, demos: Path) -> ImitationData:
    """What our own warmup would train on."""
    experts, labelled = load_demos(demos)
    trained, _ = hold_out(experts, setup.config.warmup.held_out)
    text = load_codec(warm.model)
    modes = PromptModes(
        setup.config.warmup.forward_modes,
        act=setup.prompts_with(progress=False),
        progress=setup.prompts_with(progress=True),
        demonstrations=setup.config.prompt.demonstrations,
        seed=setup.config.seed,
    )
    return imitation_data(setup.context(text), text, modes, trained, labelled)


def assert_same_tokens(rows: list[Row], data: ImitationData, warm) -> None:
    """The texts, encoded, are token for token what our own warmup trains on."""
    text = load_codec(warm.model)
    own = Counter(tuple(sample.ids.tolist()) for sample in (*data.actions, *data.won, *data.lost))
    encoded = Counter(
        (*text.encode(user["content"]), *text.encode_target(assistant["content"]))
        for user, assistant in (row["messages"] for row in rows)
    )
    assert encoded == own
    kinds = Counter(row["kind"] for row in rows)
    assert kinds == {"forward": len(data.actions), "reflect": len(data.won) + len(data.lost)}


def test_supervised_rows_are_the_warmup(warm):
    setup = set_up(load_config(None, warm.settings))
    rows = sft_rows(setup, warm.demos)
    assert_same_tokens(rows, own_warmup(setup, warm, warm.demos), warm)
    assert [m["role"] for m in rows[0]["messages"]] == ["user", "assistant"]


def test_supervised_rows_train_no_mistake(warm, tmp_path):
    """The expert's answer stands where a mistake was executed; a dead end has no row."""
    config = load_config(None, warm.settings)
    env = make("sokoban", **config.env.settings)
    section = DemosSection(
        agent="planner",
        expert=4,
        mistakes=(0.2,),
        wandering=3,
        winning=1,
        failing=1,
        labelled_mistakes=(0.7,),
    )
    save_demos(tmp_path, *collect_demos(env, env.panel("train").ids, section, seed=0))
    steps = [step for trajectory in load_demos(tmp_path)[0] for step in trajectory.steps]
    dead_ends = [step for step in steps if step.advice is not None and not step.advice.action]
    assert dead_ends
    assert any(step.mistake for step in steps if step not in dead_ends)
    setup = set_up(config)
    rows = sft_rows(setup, tmp_path)
    assert_same_tokens(rows, own_warmup(setup, warm, tmp_path), warm)
    assert sum(row["kind"] == "forward" for row in rows) == 2 * (len(steps) - len(dead_ends))


def test_supervised_rows_leave_out_what_the_warmup_holds_out(warm):
    setup = set_up(load_config(None, [*warm.settings, "warmup.held_out=2"]))
    rows = sft_rows(setup, warm.demos)
    assert_same_tokens(rows, own_warmup(setup, warm, warm.demos), warm)
    experts, labelled = load_demos(warm.demos)
    held = {trajectory.task_id for trajectory in hold_out(experts, 2)[1]}
    assert held
    assert not held & {row["task"] for row in rows if row["kind"] == "forward"}
    assert sum(row["kind"] == "reflect" for row in rows) == len(experts) + len(labelled) - 2


@pytest.mark.parametrize("mode", ["demos-plain", "privileged-end"])
def test_supervised_rows_show_neither_demonstrations_nor_the_end(warm, mode):
    setup = set_up(load_config(None, [*warm.settings, f"warmup.forward_modes=[{mode}]"]))
    with pytest.raises(ConfigError, match=mode):
        sft_rows(setup, warm.demos)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed here")
def test_without_pyarrow_the_error_says_where_it_is(tmp_path):
    with pytest.raises(MissingDependencyError, match="make verl-setup"):
        write_parquet(tmp_path / "rows.parquet", [{"a": 1}])


@pytest.mark.skipif(importlib.util.find_spec("verl") is not None, reason="verl is installed here")
def test_without_verl_the_error_says_how_to_install_it():
    command = ["/usr/bin/python3", "-m", "verl.trainer.main_ppo", "--config-dir", "a b"]
    words = r"make verl-setup.*Python: VARIABLE=x python -m verl.trainer.main_ppo --config-dir 'a b'\."
    with pytest.raises(MissingDependencyError, match=words):
        run_verl(command, {"VARIABLE": "x"})


@pytest.mark.skipif(importlib.util.find_spec("verl") is not None, reason="verl is installed here")
@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["train", "--init", "MODEL", "-o", "OUT"], "verl is not installed"),
        (["train", "--init", "MODEL", "-o", "OUT", "--prepare"], "pyarrow"),
        (["data", "-o", "OUT"], "pyarrow"),
        (["sft-data", "--demos", "DEMOS", "-o", "OUT/rows.parquet"], "pyarrow"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(
    warm, tmp_path, capsys, monkeypatch, words, missing
):
    if missing == "pyarrow" and importlib.util.find_spec("pyarrow") is not None:
        pytest.skip("pyarrow is installed here")
    out = tmp_path / "out"
    names = {"MODEL": str(warm.model), "DEMOS": str(warm.demos), "OUT": str(out)}
    for name, value in names.items():
        words = [word.replace(name, value) for word in words]
    status, printed = run_command(capsys, monkeypatch, "verl", *words, "-c", CPU_RECIPE)
    assert status == 2
    assert missing in printed
    assert not out.exists() or not list(out.iterdir())
