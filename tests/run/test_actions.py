"""Actions that no answer can hold are found before anything is played."""

from __future__ import annotations

import re

import pytest

from repro_rl.config import load_config
from repro_rl.envs.base import ENVS, make
from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.errors import ConfigError
from repro_rl.run.actions import check_actions
from repro_rl.run.panels import Use
from repro_rl.run.preflight import preflight
from repro_rl.text.parse import TextFormat

SMALL = {"train_rooms": 4, "validation_rooms": 4, "test_rooms": 4}
COMPACT, PLAIN, FULL = TextFormat("compact"), TextFormat("compact", progress=False), TextFormat("full")


class Named(SokobanEnv):
    """Has actions of other names."""

    listed = ("up",)
    answer = "up"

    def _info(self, valid, brief):
        return {**super()._info(valid, brief), "admissible": list(self.listed)}

    def expert(self):
        return self.answer


def named(listed=("up",), answer="up"):
    env = Named(**SMALL)
    env.listed, env.answer = listed, answer
    return env


@pytest.mark.parametrize(
    ("env", "fmt", "said"),
    [
        (named(), COMPACT, None),
        (named(["go  up", " up "]), COMPACT, None),
        (named(["search[<your query>]", "<b>up</b>"]), FULL, None),
        (named(["p4 up"]), PLAIN, None),
        (named(["p4 up"]), FULL, None),
        (named(answer=None), COMPACT, None),
        (named(["p4 up", "p5", "up"]), COMPACT, r"^No answer can hold 2 actions .* such as 'p4 up', 'p5': "),
        (named(["p4 up"]), COMPACT, "is read as the action 'up', with duplicate_progress. Name it diff"),
        (named(["up p4"]), TextFormat("compact", report="after"), "'up p4 p50' is read as"),
        (named(["<think>"]), FULL, "Name it differently in the environment: without <action>"),
        (named([""]), FULL, "with empty_action"),
    ],
)  # fmt: skip
def test_listed_actions(env, fmt, said):
    found = check_actions(env, env.panel("train").ids, fmt, expert=True)
    if said is None:
        assert found is None
    else:
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(found)


def test_an_action_of_the_expert_is_an_error():
    env = named(answer="p4")
    with pytest.raises(ConfigError, match=r"The expert of .* takes 'p4' in .*set prompt\.style=full"):
        check_actions(env, env.panel("train").ids, COMPACT, expert=True)
    assert check_actions(env, env.panel("train").ids, FULL, expert=True) is None
    assert check_actions(env, env.panel("train").ids, COMPACT, expert=False) is None  # nobody will ask it


def test_a_command_is_told_before_it_plays():
    with ENVS.isolated():
        ENVS.register("named", lambda **settings: named(["p4", "up"], "p4"))
        given = ["env.name=named", "eval.tasks=4", "eval.validation_tasks=4", "train.groups=4"]
        for method, use, wrong in (
            ("repro", Use.TRAIN, "No answer can hold 1 action .* such as 'p4'"),
            ("gigpo", Use.TRAIN, None),
            ("gigpo", Use.DEMOS, "takes 'p4'"),
            ("repro", Use.EVAL, "No answer can hold 1 action"),
            ("repro", Use.VALIDATION, "No answer can hold 1 action"),
        ):
            config = load_config(None, [*given, f"method={method}", "train.minibatches=1"])
            if use is Use.DEMOS:
                with pytest.raises(ConfigError, match=wrong):
                    preflight(config, make("named"), {use})
                continue
            said = " ".join(preflight(config, make("named"), {use}))
            assert said == "" if wrong is None else re.search(wrong, said)
