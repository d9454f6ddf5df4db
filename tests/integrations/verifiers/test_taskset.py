"""The tasksets of verifiers, run by its own commands against a model server that follows the expert."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verifiers", reason="verifiers is not installed: pip install '.[verifiers]'")

import verifiers.v1 as vf
from verifiers.v1.cli.eval.main import main as vf_eval
from verifiers.v1.cli.validate import main as vf_validate
from verifiers.v1.utils.loaders import harness_class, taskset_class

import repro_rl
import repro_rl_alfworld
import repro_rl_sokoban
import repro_rl_webshop
from repro_rl.integrations.adapters import VERIFIERS
from repro_rl.integrations.session import EpisodeSession, open_session
from repro_rl.integrations.verifiers.taskset import PanelConfig, PanelTask, PanelTaskset
from support.adapter_cells import an_environment_of_mine, assert_column, works
from support.api_server import Reply, Server, completion

EXAMPLE = Path(__file__).parents[3] / "examples" / "verifiers_eval.py"
PACKAGES = {"sokoban": repro_rl_sokoban, "alfworld": repro_rl_alfworld, "webshop": repro_rl_webshop}


def chat_completion(text: str) -> Reply:
    """As strict clients want it."""
    reply = completion(text)
    data = {**json.loads(reply.data), "object": "chat.completion", "created": 0, "model": "scripted"}
    data["usage"]["total_tokens"] = 15
    return Reply(data=json.dumps(data).encode())


class ExpertModel:
    """Answers each conversation with the expert's next action; loses the tasks in ``loses``."""

    def __init__(self, env: str, loses: tuple[str, ...] = ()):
        self.sessions: dict[str, EpisodeSession] = {}  # by the first prompt
        for task in open_session(env, split="test").panel.ids[:3]:
            session = open_session(env, form="chat")
            self.sessions[session.reset(task).text] = session
        self.loses = loses

    def __call__(self, body: dict[str, Any], number: int) -> Reply:
        messages = body["messages"]
        session = self.sessions[messages[0]["content"]]
        last = session.last
        assert last is not None
        assert messages[-1]["content"] == last.text  # the conversation is where the session is
        action = "wait" if last.task_id in self.loses else session.env.expert()
        answer = f"<think>as planned</think><action>{action}</action>"
        session.answer(answer)
        return chat_completion(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", list(sys.argv))  # the commands write it
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MODEL_KEY", "none")


def evaluate(name: str, server: Server, out: Path, *more: str) -> list[dict[str, Any]]:
    """The traces that vf-eval writes."""
    client = ["--client.base-url", server.url, "--client.api-key-var", "MODEL_KEY", "--model", "scripted"]
    vf_eval([f"repro-rl-{name}", *client, "--no-push", "--no-rich", "-o", str(out), "--run.name", "r", *more])
    lines = (out / "r" / "traces.jsonl").read_text().splitlines()
    return [trace for line in lines for trace in json.loads(line)["traces"]]


@pytest.mark.parametrize("name", PACKAGES)
def test_vf_eval_scores_an_expert_and_a_loser(name: str, server: Server, tmp_path: Path) -> None:
    panel = repro_rl.make(name).panel("test")
    server.reply = ExpertModel(name, loses=(panel.ids[1],))
    traces = evaluate(name, server, tmp_path, "-n", "2")
    by_task = {trace["task"]["data"]["id"]: trace for trace in traces}
    assert set(by_task) == set(panel.ids[:2])
    won, lost = by_task[panel.ids[0]], by_task[panel.ids[1]]
    assert won["ok"]
    assert lost["ok"]
    assert {key: entry["score"] for key, entry in won["rewards"].items()} == {"won": 1.0, "score": 1.0}
    assert {key: entry["weight"] for key, entry in won["rewards"].items()} == {"won": 1.0, "score": 0.0}
    assert won["metrics"]["progress"] == 1.0
    assert won["metrics"]["invalid"] == 0.0
    assert {key: entry["score"] for key, entry in lost["rewards"].items()} == {"won": 0.0, "score": 0.0}
    assert lost["metrics"]["invalid"] == 1.0
    assert lost["metrics"]["steps"] == repro_rl.make(name).max_steps
    assert won["task"]["data"]["panel"] == panel.label()


def test_the_score_can_be_rewarded_and_turns_limited(server: Server, tmp_path: Path) -> None:
    server.reply = ExpertModel("sokoban")
    weight = ["--env.taskset.task.rewards.outcome.weight", "0.5"]
    (trace,) = evaluate("sokoban", server, tmp_path, "-n", "1", *weight)
    assert trace["rewards"]["score"]["weight"] == 0.5
    server.reply = ExpertModel("sokoban")
    (trace,) = evaluate("sokoban", server, tmp_path / "b", "-n", "1", "--env.player.max-turns", "2")
    assert (trace["rewards"]["won"]["score"], trace["metrics"]["steps"]) == (0.0, 2.0)


def test_vf_validate_lets_the_expert_win(tmp_path: Path) -> None:
    local = ["--runtime.type", "subprocess", "--no-rich", "-o", str(tmp_path)]
    vf_validate(["repro-rl-sokoban", "-n", "2", *local])
    rows = [json.loads(line) for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(rows) == 2
    assert all(row["valid"] for row in rows)


def test_the_example_runs(server: Server) -> None:
    server.reply = ExpertModel("sokoban")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), server.url, "scripted", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "{'won': 1.0, 'score': 1.0}" in done.stderr


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_are_found_by_their_ids(name: str) -> None:
    kind = taskset_class(f"repro-rl-{name}")
    assert issubclass(kind, PanelTaskset)
    assert name == kind.ENVIRONMENT
    assert harness_class(f"repro-rl-{name}").__name__ == "InProcess"


def test_tasks_are_the_panel_in_order_and_keys_follow_the_content() -> None:
    taskset = repro_rl_sokoban.SokobanTaskset(PanelConfig(id="repro-rl-sokoban"))
    tasks = list(taskset.take(5))
    assert [task.data.id for task in tasks] == list(repro_rl.make("sokoban").panel("test").ids[:5])
    assert len({task.key for task in tasks}) == 5
    smaller = PanelConfig(id="repro-rl-sokoban", settings={"test_rooms": 3})
    again = list(repro_rl_sokoban.SokobanTaskset(smaller))
    assert [task.key for task in again] == [task.key for task in tasks[:3]]
    assert again[0].data.panel != tasks[0].data.panel
    assert isinstance(tasks[0], vf.Task)


def test_a_system_message_comes_before_the_conversation(tmp_path: Path) -> None:
    plain = next(iter(repro_rl_sokoban.SokobanTaskset(PanelConfig(id="repro-rl-sokoban"))))
    (tmp_path / "system.txt").write_text("Be of use.")
    asked = PanelConfig(id="repro-rl-sokoban", system_prompt=tmp_path / "system.txt")
    task = next(iter(repro_rl_sokoban.SokobanTaskset(asked)))
    assert (plain.data.system_prompt, task.data.system_prompt) == (None, "Be of use.")
    assert (plain.data.prompt, plain.key) == (task.data.prompt, task.key)


def test_its_column_of_the_capabilities() -> None:
    def loaded(env: str = "sokoban", **more: Any) -> list[Any]:
        kind = type("Tasks", (PanelTaskset,), {"ENVIRONMENT": env})
        small = {"test_rooms": 8, "train_rooms": 8}
        return list(kind(PanelConfig(settings=small, **more)).load())

    tasks = loaded()
    session = tasks[0].open()
    prompt = session.reset(tasks[0].data.id).text
    assert session.last is not None
    listed = "\n".join(f"- {action}" for action in session.last.admissible)
    session.reset(tasks[0].data.id)
    plan = session.env.expert()
    assert plan is not None
    plain = session.answer(plan).valid
    session.reset(tasks[0].data.id)
    answered = session.answer(f"<think>so</think><action>{plan}</action>").valid
    rewards = {name for name in ("won", "outcome", "episode") if hasattr(PanelTask, name)}
    with an_environment_of_mine() as mine:
        own = loaded(mine)
    fields = set(PanelConfig.model_fields) - set(vf.TasksetConfig.model_fields)
    assert_column(
        VERIFIERS,
        {
            "evaluation on a fixed panel": [task.data.id for task in tasks] == list(session.panel_of("test")),
            "settings of the environment, official data": len(tasks) == 8,
            "an environment of your own": len(own) == 8,
            "a task by its id": "task" in fields,
            "a task by its position": "index" in fields,
            "a random task, by a seed": "seed" in fields,
            "another split for one episode": "split" in set(type(tasks[0].data).model_fields),
            "actions as they stand": plain,
            "answers in text, <action>…</action>": answered,
            "actions by tool calls": works(lambda: tasks[0].tools),
            "the rules come with the first text": session.instructions in prompt == tasks[0].data.prompt,
            "the possible actions are shown": listed in tasks[0].data.prompt,
            "the possible actions can be left out": listed not in loaded(admissible=False)[0].data.prompt,
            "the environment's reward at every step": hasattr(PanelTask, "step_reward"),
            "won and score": rewards >= {"won", "outcome"},
            "true progress, where the environment knows it": "episode" in rewards,
            "many sessions in one process": tasks[1].open().env is not session.env,
            "a picture of the state for people": hasattr(PanelTask, "render"),
        },
    )
