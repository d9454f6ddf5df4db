"""Registration, ``make`` and the helpers of the environment contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro_rl.config import EvalSection
from repro_rl.envs.alfworld.settings import AlfworldSettings
from repro_rl.envs.base import ENVS, StepInfo, has_tasks, make, panel_of, register_env
from repro_rl.envs.panel import TaskPanel
from repro_rl.envs.sokoban import SokobanEnv
from repro_rl.envs.sokoban.settings import SokobanSettings
from repro_rl.envs.webshop.settings import WebShopSettings
from repro_rl.errors import ConfigError, TaskError, UnknownNameError
from repro_rl.rollout.env_pool import EnvPool
from repro_rl.run.panels import eval_panel
from repro_rl.settings import Section

CONTRACT = Path(__file__).parents[2] / "docs" / "environment-contract.md"
TITLES = {"alfworld": "ALFWorld", "sokoban": "Sokoban", "webshop": "WebShop"}


def test_the_built_in_environments_are_registered() -> None:
    assert {"alfworld", "sokoban", "webshop"} <= set(ENVS.names())


@pytest.mark.usefixtures("own_environments")
def test_a_registered_environment_can_be_made() -> None:
    @register_env("two-boxes")
    def two_boxes(seed: int = 0) -> SokobanEnv:
        return SokobanEnv(boxes=2, seed=seed)

    env = make("two-boxes", seed=3)
    assert env.panel("test").ids[0].startswith("gen-6x6-b2-")
    with pytest.raises(ConfigError, match="'two-boxes' has no setting 'sed'; did you mean 'seed'"):
        make("two-boxes", sed=3)
    with pytest.raises(ConfigError, match="registered twice"):
        register_env("two-boxes")(SokobanEnv)


class Broken(SokobanEnv):
    """Fails where ``at`` says."""

    def __init__(self, at: str, folder: str = "rooms"):
        super().__init__()
        self.at = at
        if at == "init":
            self.rooms = {"levels": 1}[folder]
        if at == "steps":
            self.max_steps = "20"  # type: ignore[assignment]

    def panel(self, split: str) -> TaskPanel:
        if self.at == "panel":
            open("no/such/list.txt").close()
        return super().panel(split) if self.at != "none" else None  # type: ignore[return-value]

    def vocabulary(self) -> Iterator[str]:
        yield self.words[0]  # type: ignore[attr-defined]

    def describe(self) -> str:
        return str(1 / 0)

    def task_type(self, task_id: str) -> str:
        return task_id.split("/")[9]


@pytest.mark.usefixtures("own_environments")
def test_a_failure_of_an_environments_own_code_is_named_with_its_place() -> None:
    register_env("broken")(Broken)
    place = r"\(test_base\.py, line \d+\)\. Mend it there; REPRO_RL_TRACEBACK=1 prints the whole traceback\.$"
    with pytest.raises(
        ConfigError,
        match=r"^Broken\(at='init', folder='x'\) of the environment 'broken' \(env\.name, env\.settings\) "
        rf"failed: KeyError: 'x' {place}",
    ) as raised:
        make("broken", at="init", folder="x")
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(
        ConfigError, match=r"'broken' needs the setting 'at', which has no default: give env\.s"
    ):
        make("broken")
    with pytest.raises(ConfigError, match=r"max_steps of Broken is '20'; it must be 1 or more"):
        make("broken", at="steps")

    pool = EnvPool("broken", {"at": "panel"})
    failed = r"panel\('test'\) of Broken \(the environment 'sokoban'\) failed: FileNotFoundError: .*no/such"
    with pytest.raises(ConfigError, match=f"^{failed}.* {place}"):
        pool.panel("test")
    with pytest.raises(ConfigError, match=rf"^eval\.split: {failed}"):
        eval_panel(EvalSection(split="test"), pool.panel)
    with pytest.raises(ConfigError, match=f"^{failed}"):
        has_tasks(pool.first, "test")
    with pytest.raises(
        ConfigError, match=rf"^describe\(\) of Broken .* failed: ZeroDivisionError: .*{place}"
    ):
        pool.describe()
    with pytest.raises(ConfigError, match=rf"^task_type\('a/b'\) of Broken .* failed: IndexError: .*{place}"):
        pool.task_type("a/b")
    with pytest.raises(ConfigError, match=rf"^vocabulary\(\) of Broken .* failed: AttributeError: .*{place}"):
        pool.vocabulary()
    with pytest.raises(
        ConfigError, match=r"of Broken .* returned NoneType; it must return a repro_rl\.TaskPanel"
    ):
        panel_of(make("broken", at="none"), "test")
    with pytest.raises(TaskError, match="no split 'tset'"):
        panel_of(make("broken", at=""), "tset")


def test_registration_in_isolation_is_undone() -> None:
    with ENVS.isolated():
        register_env("temporary")(SokobanEnv)
        assert "temporary" in ENVS.names()
    with pytest.raises(UnknownNameError):
        make("temporary")


@pytest.mark.parametrize(("name", "title"), TITLES.items())
def test_a_wrong_setting_is_named_with_the_nearest_known_name(name: str, title: str) -> None:
    for settings, message in (
        ({"max_step": 3}, rf"{title} has no setting 'max_step'; did you mean 'max_steps'\? Known: "),
        ({"style": "textt"}, rf"{title}: style='textt' is unknown.* Known: "),
        ({"max_steps": 0}, rf"{title}: max_steps=0; use 1 or more\."),
        ({"max_steps": "many"}, rf"{title}: max_steps='many': .*integer"),
        (
            {"max_steps": 0, "sed": 1},
            rf"(?s){title}: max_steps=0; .*\n{title} has no setting 'sed'; .*'seed'",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            make(name, **settings)


@pytest.mark.parametrize("schema", [AlfworldSettings, SokobanSettings, WebShopSettings])
def test_every_setting_is_described(schema: type[Section]) -> None:
    assert [name for name, field in schema.model_fields.items() if not field.description] == []


def test_the_page_lists_every_key_of_info_and_no_other() -> None:
    """docs/environment-contract.md, and the environments give what it lists."""
    listed = re.findall(r'^\| `info\["(\w+)"\]` \|', CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(StepInfo.__annotations__)
    for name, settings in {
        "sokoban": {},
        "alfworld": {"games": 12},
        "webshop": {"generated": (120, 0)},
    }.items():
        env = make(name, **settings)
        assert (
            env.reset(options={"task": env.panel("train").ids[0]})[1].keys()
            == StepInfo.__annotations__.keys()
        )


@pytest.mark.parametrize("name", ["alfworld", "sokoban", "webshop"])
def test_the_action_in_the_example_of_an_answer_is_possible_at_the_start(name: str) -> None:
    env = make(name)
    possible = []
    for task in env.panel("test").ids[:5]:
        env.reset(options={"task": task})
        possible.append(env.step(env.example_action)[4]["valid"])
    assert any(possible), env.example_action
