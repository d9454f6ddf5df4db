"""WebShopEnv: contract, settings, panels, rewards, errors."""

from __future__ import annotations

import random
import string
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import repro_rl
from repro_rl.config import load_config
from repro_rl.envs.checker import check_env
from repro_rl.errors import ConfigError, DataError, TaskError
from repro_rl.rollout.context.base import first_inputs
from repro_rl.run.setup import set_up
from repro_rl.text.turns import TurnPrompts
from support.webshop_shop import SMALL, hand_made, record, shop

STYLES = ("text", "text_rich", "compact", "words")


@pytest.mark.parametrize("style", STYLES)
def test_the_contract_holds_in_every_style(style: str) -> None:
    factory = partial(repro_rl.make, "webshop", generated=SMALL, style=style)
    for check in check_env(factory(), tasks=4, factory=factory):
        assert check.ok, f"{check.name}: {check.detail}"


def test_unknown_settings_name_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'text_rich'"):
        shop(style="textrich")
    with pytest.raises(ConfigError, match="max_steps=0"):
        shop(max_steps=0)
    with pytest.raises(ConfigError, match=r"no setting 'prize'.*'prices'"):
        shop(prize="x")
    with pytest.raises(ConfigError, match="name your data as well"):
        shop(limit=5)


def test_panels_are_functions_of_data_and_seed() -> None:
    one, again = shop(seed=1), shop(seed=1, style="words")
    other = shop(seed=2)
    assert one.panel("test").digest == again.panel("test").digest
    assert one.panel("test").digest != other.panel("test").digest
    assert sorted(one.panel("all").ids) == sorted(other.panel("all").ids)
    assert len(shop(max_goals=50).panel("all")) == 50


def test_every_reward_part_of_one_purchase(tmp_path: Path) -> None:
    """1 attribute, 2 options, the price: 4 parts; each option bought adds a quarter."""
    mug = record(
        "M000000001",
        customization_options={
            "Color": [{"value": "Red"}, {"value": "Sky Blue"}],
            "Size": [{"value": "S/M"}],
        },
    )
    env = hand_made(tmp_path, [mug], style="text", reward="score", splits="position")
    task = next(t for t in env.panel("all") if env.goal(t).options == ("sky blue", "s | m"))
    goal = env.goal(task)
    assert goal.instruction.startswith(
        "Find me a dishwasher safe mug with color: sky blue, and size: s | m, and price lower than "
    )
    env.reset(options={"task": task})
    observation, _, _, _, info = env.step("search[Mug]")
    assert observation.endswith(
        "Page 1 (Total results: 1) [SEP] Next > [SEP] M000000001 [SEP] Plain Mug for Tea [SEP] $12.0"
    )
    assert info["progress"] == 0.2
    observation, _, _, _, info = env.step("click[m000000001]")
    assert "[SEP] color [SEP] red [SEP] sky blue [SEP] size [SEP] s | m [SEP] Plain Mug" in observation
    assert info["progress"] == pytest.approx(0.2 + 0.7 * 2 / 4)
    assert env.step("click[red]")[4]["progress"] == pytest.approx(0.2 + 0.7 * 2 / 4)
    assert env.step("click[Sky Blue]")[4]["progress"] == pytest.approx(0.2 + 0.7 * 3 / 4), "last click wins"
    before = env.step("click[features]")
    assert before[0].endswith("< Prev [SEP] dishwasher safe [SEP] made of clay")
    assert before[4]["progress"] == pytest.approx(0.2 + 0.7 * 3 / 4)
    env.step("click[< prev]")
    env.step("click[s | m]")
    observation, reward, terminated, truncated, info = env.step("click[buy now]")
    assert (reward, terminated, truncated, info["won"], info["progress"]) == (1.0, True, False, True, 1.0)
    assert '{"color": "sky blue", "size": "s | m"}' in observation
    assert info["parts"].attributes == 1
    assert info["parts"].options == 2
    with pytest.raises(TaskError, match="call reset"):
        env.step("click[buy now]")


def test_win_pays_ten_for_a_perfect_purchase_only(tmp_path: Path) -> None:
    mug = record("M000000001", customization_options={"color": [{"value": "red"}]})
    env = hand_made(tmp_path, [mug])
    for clicks, paid, score in (([], 0.0, 2 / 3), (["click[red]"], 10.0, 1.0)):
        env.reset(options={"task": env.panel("all").ids[0]})
        for action in ["search[mug]", "click[m000000001]", *clicks]:
            assert env.step(action)[1] == 0.0
        _, reward, _, _, info = env.step("click[buy now]")
        assert reward == paid
        assert info["score"] == pytest.approx(score)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=40) | st.sampled_from(["[", "]"]).map(lambda b: f"search{b}"), max_size=8))
def test_bad_actions_never_raise(actions: list[str]) -> None:
    env = shop(style="text_rich")
    env.reset(options={"task": env.panel("test").ids[0]})
    for action in actions:
        env.step(action)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["text", "text_rich", "compact", "words"]))
def test_random_episodes_are_valid_and_reproducible(seed: int, style: str) -> None:
    """Every admissible action is valid; progress stays within 0..1; replaying gives the same texts."""
    env, twin = shop(style=style), shop(style=style)
    rng = random.Random(seed)
    task = rng.choice(env.panel("train").ids)
    observation, info = env.reset(options={"task": task})
    assert (observation, info) == twin.reset(options={"task": task})
    for _ in range(env.max_steps):
        action = rng.choice(info["admissible"]).replace(
            "<your query>", "".join(rng.choices(string.ascii_letters + " ", k=9))
        )
        result = env.step(action)
        assert result == twin.step(action)
        info = result[4]
        assert info["valid"], action
        assert 0 <= info["progress"] <= 1
        assert (info["progress"] == 1.0) == info["won"]
        if result[2] or result[3]:
            break


def test_missing_data_error_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="items_shuffle"):
        repro_rl.make("webshop", data=str(tmp_path))


def test_environments_share_one_catalogue() -> None:
    envs = [shop(style=style) for style in STYLES for _ in range(8)]
    assert len({id(env.shop) for env in envs}) == 1


def test_the_same_goals_among_other_products_are_another_panel(tmp_path: Path) -> None:
    one = hand_made(tmp_path / "one", [record("M000000001"), record("M000000002", name="Cup")])
    two = hand_made(tmp_path / "two", [record("M000000001"), record("M000000002", name="Jug")])
    task = "M000000001/synthetic/0"
    assert one.goal(task).content() == two.goal(task).content()
    assert one.panel("all").digest != two.panel("all").digest
    (tmp_path / "prices.jsonl").write_text('{"asin": "M000000002", "price": 1}\n')
    cheap = repro_rl.make("webshop", data=str(tmp_path / "one"), prices=str(tmp_path / "prices.jsonl"))
    assert cheap.panel("all").digest != one.panel("all").digest


@pytest.mark.parametrize(
    ("style", "action"), [("words", "click[back]"), ("compact", "search[long red dress]")]
)
def test_prompts_show_an_action_in_the_form_of_an_answer(style: str, action: str) -> None:
    setup = set_up(load_config("webshop-tiny", ["prompt.style=full", f"env.settings.style={style}"]))
    env = setup.pool.first
    inputs = first_inputs(env, env.panel("test").ids[0])
    for text in (setup.prompts.act(inputs), TurnPrompts(setup.prompts).act(inputs)):
        assert f"Example of the form: <action>{action}</action>" in text
    if style == "words":
        env.step(inputs.admissible[0])
    assert env.step(action)[4]["valid"]
