"""The OpenEnv server, against the real package: its client, its validator, its Task API, many sessions."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("openenv", reason="openenv is not installed: pip install '.[openenv]'")

import httpx
from openenv.cli.__main__ import app as openenv_cli
from openenv.validation import run_validation
from openenv.validation.types import CheckStatus, Level, ProviderCapability
from typer.testing import CliRunner

import repro_rl
from repro_rl.envs.base import TextEnv
from repro_rl.errors import ConfigError, TaskError
from repro_rl.integrations.adapters import OPENENV
from repro_rl.integrations.openenv import TextAction, TextClient, TextEnvironment, create_app
from support.adapter_cells import an_environment_of_mine, assert_column, works
from support.openenv_server import serving

PACKAGES = Path(__file__).parents[3] / "environments" / "openenv"
EXAMPLE = Path(__file__).parents[3] / "examples" / "openenv_client.py"
ENVIRONMENTS = ("sokoban", "alfworld", "webshop")
MODEL_STYLE = {"sokoban": {"style": "grid"}, "alfworld": {}, "webshop": {}}


@pytest.fixture(scope="module")
def sokoban() -> Iterator[str]:
    with serving("sokoban", sessions=40) as url:
        yield url


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_episode_over_the_wire_is_the_environments_own(name: str) -> None:
    env: TextEnv = repro_rl.make(name, **MODEL_STYLE[name])
    task = env.panel("test").ids[1]
    observation, info = env.reset(options={"task": task})
    with serving(name) as url, TextClient(base_url=url).sync() as client:
        seen = client.reset(split="test", index=1)
        assert seen.observation.instructions == env.instructions
        done = False
        while not done:
            assert (seen.observation.text, seen.observation.admissible) == (observation, info["admissible"])
            assert (seen.observation.goal, seen.reward, seen.done) == (info["goal"], 0.0, False)
            action = env.expert()
            assert action is not None
            observation, _, terminated, truncated, info = env.step(action)
            seen, done = client.step(TextAction(command=action)), terminated or truncated
        assert (seen.reward, seen.done, seen.observation.text) == (info["score"], True, observation)
        state = client.state()
    assert (state.won, state.score, state.progress, state.task_id) == (True, 1.0, 1.0, task)


def test_neither_outcome_nor_progress_is_in_what_the_agent_sees(sokoban: str) -> None:
    with TextClient(base_url=sokoban).sync() as client:
        client.reset(split="test", index=0)
        seen = client.step("down").observation
    assert not {"won", "score", "progress", "task_id"} & set(seen.model_dump())
    assert seen.metadata == {}


def test_refusals_say_why(sokoban: str) -> None:
    with TextClient(base_url=sokoban).sync() as client:
        for call, words in [
            (lambda: client.step("up"), "call reset before step"),
            (lambda: client.reset(idx=3), "did you mean 'index'"),
            (lambda: client.reset(index=-1), "use 0 or more"),
            (lambda: client.reset(split="test", index=500), "positions go from 0 to 499"),
            (lambda: client.reset(split="tset"), "did you mean 'test'"),
            (lambda: client.reset(task="nowhere"), "no task 'nowhere'"),
        ]:
            with pytest.raises(RuntimeError, match=words):
                call()
        assert not client.reset(index=0).done  # the session goes on
    refused = httpx.post(f"{sokoban}/reset", json={"idx": 3}, timeout=60)
    assert (refused.status_code, "did you mean 'index'" in refused.json()["detail"]) == (400, True)


def test_a_seed_draws_the_same_task_and_an_invalid_action_costs_a_step(sokoban: str) -> None:
    with TextClient(base_url=sokoban).sync() as client:
        first = client.reset(seed=7, split="test", episode_id="mine").observation
        seen = client.step("jump")
        assert (seen.observation.valid, client.state().step_count, client.state().episode_id) == (
            False,
            1,
            "mine",
        )
        assert client.reset(seed=7, split="test").observation == first
        assert client.reset(seed=8, split="test").observation != first


def test_the_task_api_is_our_panels(sokoban: str) -> None:
    ids = repro_rl.make("sokoban").panel("test").ids

    def post(route: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{sokoban}/sokoban/{route}", json={"split": "test", **body}, timeout=60)

    splits = httpx.get(f"{sokoban}/sokoban/splits", timeout=60).json()
    assert [(entry["name"], entry["type"]) for entry in splits] == [
        (n, n) for n in ("train", "validation", "test")
    ]
    assert post("num_tasks").json() == {"num_tasks": 500}
    assert [task["id"] for task in post("tasks").json()["tasks"]] == list(ids)
    assert post("task", index=3).json()["task"] == {"id": ids[3], "split": "test", "index": 3}
    assert [task["index"] for task in post("task_range", start=497).json()["tasks"]] == [497, 498, 499]
    assert post("task", index=500).status_code == post("task", index=-1).status_code == 400
    assert post("num_tasks", split="tset").status_code == 400


def test_sessions_side_by_side_do_not_disturb_each_other(sokoban: str) -> None:
    """40 interleaved sessions see what one alone sees; one more is refused."""
    alone = repro_rl.make("sokoban", style="grid")
    ids, moves = alone.panel("test").ids, ("up", "left", "down", "right", "up")
    expected = []
    for task in ids[:40]:
        alone.reset(options={"task": task})
        expected.append([alone.step(move)[0] for move in moves])

    async def play() -> list[list[str]]:
        clients = [TextClient(base_url=sokoban) for _ in range(40)]
        await asyncio.gather(*(client.connect() for client in clients))
        try:
            await asyncio.gather(*(c.reset(split="test", index=i) for i, c in enumerate(clients)))
            seen: list[list[str]] = [[] for _ in clients]
            for move in moves:
                for texts, result in zip(
                    seen, await asyncio.gather(*(client.step(move) for client in clients)), strict=True
                ):
                    texts.append(result.observation.text)
            with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
                async with TextClient(base_url=sokoban) as late:
                    await late.reset()
            return seen
        finally:
            await asyncio.gather(*(client.close() for client in clients))

    assert asyncio.run(play()) == expected


def test_sessions_share_the_data_of_the_environment() -> None:
    shops = [TextEnvironment("webshop")._session.env.shop for _ in range(3)]
    assert shops[0] is shops[1] is shops[2]


def test_what_cannot_play_does_not_start() -> None:
    with pytest.raises(ConfigError, match="did you mean 'boxes'"):
        create_app("sokoban", {"boxs": 2})
    with pytest.raises(TaskError, match="did you mean 'test'"):
        create_app("sokoban", split="tset")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_openenvs_own_command_accepts_the_packages(name: str) -> None:
    result = CliRunner().invoke(
        openenv_cli, ["validate", str(PACKAGES / name), "--level", "static", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["verdict"] == "pass"


def test_openenvs_own_command_accepts_the_running_server(sokoban: str) -> None:
    result = CliRunner().invoke(openenv_cli, ["validate", "--url", sokoban, "--timeout", "60"])
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.output


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n> ") == 4
    assert "true progress 0." in done.stdout


class LocalProvider:
    """Runs the package's server in this process, in place of a container."""

    name = "local"
    capabilities = frozenset({ProviderCapability.IMAGE_BUILD})
    supported_network_modes = frozenset({"no-network"})

    def __init__(self, env: str):
        self.running = serving(env)

    def build(self, root: Path, execution: Any) -> str:
        assert (root / execution.dockerfile).is_file()
        return "sha256:" + "0" * 64

    def start(self, spec: Any) -> Any:
        url = self.running.__enter__()
        return SimpleNamespace(
            base_url=url, inspect=dict, stop=lambda: self.running.__exit__(None, None, None)
        )


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_openenvs_runtime_checks_pass(name: str) -> None:
    """Its collector plays the expert's plan of the package; its graders judge the recorded messages."""
    report = run_validation(PACKAGES / name, max_level=Level.RUNTIME, provider=LocalProvider(name))
    found = {result.check_id: result for result in report.results}
    for check in ("startup", "reward_well_formed", "observation_schema", "state_contract"):
        assert found[f"runtime.{check}"].status is CheckStatus.PASS, found[f"runtime.{check}"].evidence
    assert not [r for r in report.results if r.status in (CheckStatus.FAIL, CheckStatus.ERROR)]


def test_its_column_of_the_capabilities(sokoban: str) -> None:
    own = TextEnvironment("sokoban", {"max_steps": 33, "test_rooms": 8})
    env = TextEnvironment("sokoban")
    ids = [row["id"] for row in env.list_tasks("test")]
    first = env.reset(split="test", index=0)
    plan = env._session.env.expert()
    assert plan is not None
    moved = env.step(TextAction(command=plan))
    env.reset(split="test", index=0)
    answered = env.step(TextAction(command=f"<action>{plan}</action>")).valid

    env.reset(split="test", index=0)
    solved_reward = 0.0
    while (action := env._session.env.expert()) is not None:
        solved_reward = env.step(TextAction(command=action)).reward

    def begun(**chosen: Any) -> str | None:
        env.reset(**chosen)
        return env.state.task_id

    with TextClient(base_url=sokoban).sync() as one, TextClient(base_url=sokoban).sync() as two:
        several = one.reset(split="test", index=0).observation != two.reset(split="test", index=1).observation
    with an_environment_of_mine() as mine:
        mine_too = TextEnvironment(mine, {"train_rooms": 8}).reset(index=0).text
    assert_column(
        OPENENV,
        {
            "evaluation on a fixed panel": ids == list(env._session.panel_of("test")),
            "settings of the environment, official data": own.num_tasks("test") == 8,
            "an environment of your own": bool(mine_too),
            "a task by its id": works(lambda: begun(task=ids[5]) == ids[5]),
            "a task by its position": works(lambda: begun(split="test", index=5) == ids[5]),
            "a random task, by a seed": works(lambda: begun(seed=7) == begun(seed=7)),
            "another split for one episode": works(lambda: begun(split="test") in ids),
            "actions as they stand": moved.valid,
            "answers in text, <action>…</action>": answered,
            "actions by tool calls": hasattr(env, "move"),
            "the rules come with the first text": first.instructions == env._session.instructions,
            "the possible actions are shown": plan in first.admissible,
            "the possible actions can be left out": works(
                lambda: TextEnvironment("sokoban", admissible=False)  # type: ignore[call-arg]
            ),
            "the environment's reward at every step": solved_reward == env._session.total_reward,
            "won and score": {"won", "score"} <= set(env.state.model_dump()),
            "true progress, where the environment knows it": env.state.progress is not None,
            "many sessions in one process": several,
            "a picture of the state for people": hasattr(env, "render"),
        },
    )
