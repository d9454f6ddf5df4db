"""The data files for verl: task rows follow our schedule and panels, supervised rows are the warmup's."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace

import pytest

from repro_rl.config import load_config
from repro_rl.demos import load_demos
from repro_rl.errors import ConfigError, DataError, MissingDependencyError
from repro_rl.integrations.verl.data import check_rows, sft_rows, task_rows, write_parquet
from repro_rl.integrations.verl.launch import run_verl
from repro_rl.policy.text import load_codec
from repro_rl.rollout import EnvPool
from repro_rl.run.setup import set_up
from repro_rl.train import PromptModes, imitation_data, task_schedule
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


def test_supervised_rows_are_the_warmup(warm):
    """The texts, encoded, are token for token what our own warmup trains on."""
    setup = set_up(load_config(None, warm.settings))
    rows = sft_rows(setup, warm.demos)
    experts, labelled = load_demos(warm.demos)
    text = load_codec(warm.model)
    modes = PromptModes(
        setup.config.warmup.forward_modes,
        act=setup.prompts_with(progress=False),
        progress=setup.prompts_with(progress=True),
        demonstrations=setup.config.prompt.demonstrations,
        seed=setup.config.seed,
    )
    data = imitation_data(setup.context(text), text, modes, experts, labelled)
    own = Counter(tuple(sample.ids.tolist()) for sample in (*data.actions, *data.won, *data.lost))
    encoded = Counter(
        (*text.encode(user["content"]), *text.encode_target(assistant["content"]))
        for user, assistant in (row["messages"] for row in rows)
    )
    assert encoded == own
    assert [m["role"] for m in rows[0]["messages"]] == ["user", "assistant"]
    kinds = Counter(row["kind"] for row in rows)
    assert kinds == {"forward": len(data.actions), "reflect": len(data.won) + len(data.lost)}


def test_supervised_rows_do_not_show_demonstrations(warm):
    setup = set_up(load_config(None, [*warm.settings, "warmup.forward_modes=[demos-plain]"]))
    with pytest.raises(ConfigError, match="demos-plain"):
        sft_rows(setup, warm.demos)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed here")
def test_without_pyarrow_the_error_says_where_it_is(tmp_path):
    with pytest.raises(MissingDependencyError, match="make verl-setup"):
        write_parquet(tmp_path / "rows.parquet", [{"a": 1}])


@pytest.mark.skipif(importlib.util.find_spec("verl") is not None, reason="verl is installed here")
def test_without_verl_the_error_says_how_to_install_it():
    with pytest.raises(MissingDependencyError, match="make verl-setup"):
        run_verl(["python", "-m", "verl.trainer.main_ppo"], {})
