"""WebShop on the generated catalogue and on small hand-made shops: contract, navigation, rewards, words."""

from __future__ import annotations

import json
import random
import string
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import repro_rl
from repro_rl.envs.checker import check_env
from repro_rl.envs.webshop import WebShopEnv, pages
from repro_rl.envs.webshop.actions import clickable, parse
from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.goals import NO_CAP, drawn_cap, drawn_price
from repro_rl.envs.webshop.reward import normal_color, similar
from repro_rl.errors import ConfigError, DataError, TaskError

SMALL = (200, 3)


def shop(**more: Any) -> WebShopEnv:
    env = repro_rl.make("webshop", **{"generated": SMALL, **more})
    assert isinstance(env, WebShopEnv)
    return env


def record(asin: str, **more: Any) -> dict[str, Any]:
    """A product record in the original's schema."""
    return {
        "asin": asin,
        "name": "Plain Mug for Tea",
        "full_description": "A mug that holds tea.",
        "small_description": ["dishwasher safe", "made of clay"],
        "pricing": "$12.00",
        "category": "garden",
        "query": "mugs",
        "product_category": "Home & Kitchen › Dining › Mugs",
        "customization_options": "",
        "images": ["x.jpg"],
        **more,
    }


def hand_made(folder: Path, products: list[dict[str, Any]], **more: Any) -> WebShopEnv:
    """A shop of these products; each wants "dishwasher safe", at its price."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items_shuffle.json").write_text(json.dumps(products))
    wanted = {
        "attributes": ["dishwasher safe"],
        "instruction": "Find me a dishwasher safe mug",
        "instruction_attributes": ["dishwasher safe"],
    }
    (folder / "items_ins_v2.json").write_text(json.dumps({p["asin"]: wanted for p in products}))
    env = repro_rl.make("webshop", data=str(folder), **more)
    assert isinstance(env, WebShopEnv)
    return env


@pytest.mark.parametrize("style", pages.STYLES)
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


def test_no_product_is_the_target_of_two_splits() -> None:
    env = shop()
    targets = {s: {env.goal(t).asin for t in env.panel(s)} for s in ("train", "validation", "test")}
    assert all(targets.values())
    assert not targets["train"] & targets["test"]
    assert not targets["train"] & targets["validation"]
    assert not targets["validation"] & targets["test"]
    head = [env.goal(task).asin for task in env.panel("test").ids[: len(targets["test"])]]
    assert len(set(head)) == len(head), "each product's first goal comes before any product's second"


def test_splits_by_position_are_the_fields() -> None:
    env = shop(generated=(500, 0), splits="position")
    every = env.panel("all").ids
    assert len(every) > 1_500
    assert env.panel("test").ids == every[:500]
    assert env.panel("eval").ids == env.panel("validation").ids == every[500:1500]
    assert env.panel("train").ids == every[1500:]
    assert env.panel("rest").ids == every[500:]
    with pytest.raises(TaskError, match=r"no split 'tset'.*'test'"):
        env.panel("tset")


def test_panels_are_functions_of_data_and_seed() -> None:
    one, again = shop(seed=1), shop(seed=1, style="words")
    other = shop(seed=2)
    assert one.panel("test").digest == again.panel("test").digest
    assert one.panel("test").digest != other.panel("test").digest
    assert sorted(one.panel("all").ids) == sorted(other.panel("all").ids)
    assert len(shop(max_goals=50).panel("all")) == 50


def test_prices_and_caps() -> None:
    def product(*prices: float) -> Product:
        return Product("A", "t", "", (), "c", "q", "p", "$1", prices, {}, ())

    assert drawn_price(product(), 0) == 100.0
    assert drawn_price(product(7.5), 0) == 7.5
    assert 10 <= drawn_price(product(10.0, 20.0), 0) <= 20
    assert drawn_price(product(10.0, 20.0), 0) != drawn_price(product(10.0, 20.0), 1)
    assert drawn_price(product(10.0, 20.0), 0, {"A": 3.0}) == 3.0
    # Above 12 lie 20, 30, 40, 50; of two of them the larger is 30 (1 of 6), 40 (2 of 6) or 50 (3 of 6).
    caps = [drawn_cap(12.0, seed, "A", "") for seed in range(6_000)]
    assert {cap: round(6 * caps.count(cap) / len(caps)) for cap in set(caps)} == {30.0: 1, 40.0: 2, 50.0: 3}
    assert drawn_cap(20.0, 0, "A", "") >= 40, "a cap lies above the price"
    assert drawn_cap(975.0, 0, "A", "") == 990.0
    assert drawn_cap(985.0, 0, "A", "") == NO_CAP


def test_colours_and_fuzzy_matches() -> None:
    assert normal_color("dark blue") == "blue"  # the first of the list, which is by alphabet
    assert normal_color("rustic oak") == "rust"
    assert normal_color("10 inch") == "10 inch"
    assert similar("rubber sole", "Rubber-Sole")
    assert similar("sole", "rubber sole"), "a subset of the words is a match"
    assert not similar("leather", "rubber sole")
    assert not similar("", "")


def test_a_purchase_by_hand(tmp_path: Path) -> None:
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


def test_pages_beyond_the_results_are_empty_and_lead_back(tmp_path: Path) -> None:
    mugs = [record(f"M{i:09d}", name=f"Mug number {i}") for i in range(12)]
    env = hand_made(tmp_path, mugs, max_steps=50)
    env.reset(options={"task": env.panel("all").ids[0]})
    first = env.step("search[mug]")[0]
    assert "Page 1 (Total results: 12)" in first
    assert first.count("$12.0") == 10
    second = env.step("click[next >]")[0]
    assert "Page 2 (Total results: 12) [SEP] < Prev [SEP] Next >" in second
    assert second.count("$12.0") == 2
    third, _, _, _, info = env.step("click[next >]")
    assert third.endswith("Page 3 (Total results: 12) [SEP] < Prev [SEP] Next >")
    assert info["valid"]
    env.step("click[< prev]")
    assert env.step("click[< prev]")[0] == first
    env.step("click[m000000001]")
    assert env.step("click[< prev]")[0] == first, "back from an item to the page it was found on"
    observation, _, _, _, info = env.step("click[search]")
    assert observation == first
    assert not info["valid"]


def test_special_queries_are_safe_and_repeatable(tmp_path: Path) -> None:
    mugs = [record(f"M{i:09d}", category="garden" if i % 2 else "beauty") for i in range(70)]
    env = hand_made(tmp_path, mugs, max_steps=100)
    env.reset(options={"task": env.panel("all").ids[0]})
    for query, total in (
        ("<r>", 50),
        ("<r> anything", 50),
        ("<c> beauty", 35),
        ("<c>", 0),
        ("<c> nothing", 0),
        ("<q> mugs", 70),
        ("<q>", 0),
        ("<a> dishwasher safe", 70),
        ("<a> no such attribute", 0),
        ("<a>", 0),
    ):
        observation, _, _, _, info = env.step(f"search[{query}]")
        assert f"Page 1 (Total results: {total})" in observation, query
        assert info["valid"]
    once = env.step("search[<r>]")[0]
    env.step("click[next >]")
    assert env.step("click[< prev]")[0] == once


def test_an_option_named_like_a_button_acts_like_it(tmp_path: Path) -> None:
    names = [
        "description",
        "buy now",
        "search",
        "back to search",
        "< prev",
        "next >",
        "a[b",
        "two\nlines",
        "",
    ]
    mug = record("M000000001", customization_options={"style": [{"value": name} for name in names]})
    env = hand_made(tmp_path, [mug], max_steps=50)
    env.reset(options={"task": env.panel("all").ids[0]})
    env.step("search[mug]")
    _, _, _, _, info = env.step("click[m000000001]")
    buttons = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
    assert env.available_actions()["clickables"] == [*buttons, "search", "next >", "a[b", "two\nlines", ""]
    for hidden in ("click[search]", "click[a[b]", "click[two\nlines]", "click[]"):
        assert hidden not in info["admissible"]
        assert not env.step(hidden)[4]["valid"]
    assert "A mug that holds tea." in env.step("click[description]")[0]
    env.step("click[< prev]")
    assert env.step("click[next >]")[4]["valid"], "on an item page it is only an option"
    assert env.step("click[buy now]")[2]


def test_hostile_products_are_shown_as_they_are(tmp_path: Path) -> None:
    title = '<script>alert("x")</script> &amp; \x00\x1b[31m ‮ mug'
    mugs = [
        record("M000000001", name=title, small_description=["<b>bold</b>", "  "], full_description=" \n "),
        record("M000000002", name="", small_description=[], full_description="x" * 1_000_000),
        record("M000000001", name="a repeated ASIN is ignored"),
        record("M00000000003", name="an ASIN too long is ignored"),
    ]
    env = hand_made(tmp_path, mugs, max_steps=50)
    assert len(env.shop.catalogue) == 2
    env.reset(options={"task": env.panel("all").ids[0]})
    assert title in env.step("search[mug]")[0]
    env.step("click[m000000001]")
    assert env.step("click[description]")[0].endswith("Back to Search [SEP] < Prev")
    env.step("click[< prev]")
    assert env.step("click[features]")[0].endswith("< Prev [SEP] <b>bold</b> [SEP] ")
    env.step("search[tea]")
    found = env.step(f"search[{'x' * 200}]")[0]
    assert "Total results" in found


def test_white_space_as_the_html_parser_leaves_it() -> None:
    assert [pages.collapsed(text) for text in ("", " ", "\t ", " \n ", "\n", "\xa0", " a ")] == [
        "",
        " ",
        " ",
        "\n",
        "\n",
        "\xa0",
        " a ",
    ]


def test_the_action_grammar() -> None:
    assert parse("search[red shoes]") == ("search", "red shoes")
    assert parse("click[Buy Now] please") == ("click", "buy now")
    assert parse("search[men [blue] shoes]") == ("search[men ", "blue] shoes")
    assert parse("click[]") == parse("buy now") == parse("click[a\nb]") == parse("") == ("", "")
    assert parse(" click[x]") == (" click", "x")
    assert clickable("x-large")
    assert not clickable("search")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=40) | st.sampled_from(["[", "]"]).map(lambda b: f"search{b}"), max_size=8))
def test_bad_actions_never_raise(actions: list[str]) -> None:
    env = shop(style="text_rich")
    env.reset(options={"task": env.panel("test").ids[0]})
    for action in actions:
        env.step(action)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["text", "text_rich", "compact", "words"]))
def test_walks_keep_their_promises(seed: int, style: str) -> None:
    """Every admissible action is valid; progress stays within 0..1; replaying gives the same texts."""
    env, twin = shop(style=style), shop(style=style)
    rng = random.Random(seed)
    task = rng.choice(env.panel("train").ids)
    assert env.reset(options={"task": task}) == twin.reset(options={"task": task})
    for _ in range(env.max_steps):
        actions = env._info(True, "")["admissible"]
        action = rng.choice(actions).replace(
            "<your query>", "".join(rng.choices(string.ascii_letters + " ", k=9))
        )
        result = env.step(action)
        assert result == twin.step(action)
        assert result[4]["valid"], action
        assert 0 <= result[4]["progress"] <= 1
        assert (result[4]["progress"] == 1.0) == result[4]["won"]
        if result[2] or result[3]:
            break


def test_the_expert_wins_in_words_and_text_and_progress_never_falls() -> None:
    for style, least in (("text", 1.0), ("words", 0.95)):
        env = shop(style=style)
        ids = env.panel("train").ids[:150]
        won = 0
        for task in ids:
            _, info = env.reset(options={"task": task})
            last = info["progress"]
            while (action := env.expert()) is not None:
                _, _, terminated, truncated, info = env.step(action)
                assert info["valid"], action
                assert info["progress"] >= last
                last = info["progress"]
                if terminated or truncated:
                    break
            won += info["won"]
        assert won >= least * len(ids), style


def test_the_expert_finds_its_way_from_anywhere() -> None:
    env = shop(max_steps=60)
    rng = random.Random(0)
    for task in env.panel("train").ids[:30]:
        _, info = env.reset(options={"task": task})
        for _ in range(12):
            open_to = [a for a in info["admissible"] if a != "click[buy now]"]
            info = env.step(rng.choice(open_to).replace("<your query>", env.goal(task).query))[4]
        while not info["won"]:
            action = env.expert()
            assert action is not None
            info = env.step(action)[4]


def test_words_are_closed_and_say_only_what_was_shown() -> None:
    env = shop(style="words")
    known = set(env.vocabulary())
    rng = random.Random(1)
    for task in env.panel("train").ids[:60]:
        observation, info = env.reset(options={"task": task})
        for _ in range(env.max_steps):
            assert set(observation.split()) <= known
            assert set(info["brief"].split()) <= known
            assert {word for action in info["admissible"] for word in action.split()} <= known
            observation, _, terminated, truncated, info = env.step(rng.choice(info["admissible"]))
            if terminated or truncated:
                break


def test_words_by_hand(tmp_path: Path) -> None:
    mugs = [
        record(
            "M000000001", name="Mugs, dishwasher safe", customization_options={"color": [{"value": "red"}]}
        ),
        record("M000000002", name="Cups", pricing="$900.00"),
    ]
    env = hand_made(tmp_path, mugs, style="words")
    task = next(task for task in env.panel("all") if task.startswith("M000000001"))
    assert env.reset(options={"task": task})[0] == "search-page a1 o1"
    observation, _, _, _, info = env.step("search[ $kind $a1 ]")
    assert observation == "results:1 r1:k2a1p1v0 r2:k0a0p0v0"
    assert info["brief"] == "results:1 k2 a1 p1"
    assert info["admissible"] == ["click[back]", "click[next]", "click[r1]", "click[r2]"]
    assert env.step("click[r2]")[0] == "item k0 a0/1 f0 d0 p0"
    assert env.step("click[features]")[0] == "features k0 a1/1 f1 d0 p0", "the bullets hold the attribute"
    env.step("click[prev]")
    assert env.step("click[prev]")[0] == "results:1 r1:k2a1p1v0 r2:k0a0p0v1"
    assert env.step("click[r1]")[0] == "item k2 a1/1 f0 d0 p1 g1:v1"
    assert env.step("click[g1v1]")[0] == "item k2 a1/1 f0 d0 p1 g1:ok"
    observation, reward, terminated, _, _ = env.step("click[buy]")
    assert (observation, reward, terminated) == ("bought:10", 10.0, True)
    env.reset(options={"task": task})
    for nonsense in ("click[r1]", "click[g1v1]", "search[ $a9 ]", "click[buy]"):
        assert not env.step(nonsense)[4]["valid"], nonsense


def test_missing_data_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="items_shuffle"):
        repro_rl.make("webshop", data=str(tmp_path))


def test_environments_share_one_catalogue() -> None:
    envs = [shop(style=style) for style in pages.STYLES for _ in range(8)]
    assert len({id(env.shop) for env in envs}) == 1


def test_an_asin_named_like_a_button_is_a_product(tmp_path: Path) -> None:
    """The original crashes here."""
    mugs = [
        record("BUY NOW"),
        record("FEATURES"),
        record('"12"', customization_options={"no": [{"value": "12"}]}),
    ]
    env = hand_made(tmp_path, mugs, style="text_rich", max_steps=50)
    env.reset(options={"task": env.panel("all").ids[0]})
    for name in ("buy now", "features"):
        env.step("search[mug]")
        observation, _, terminated, _, info = env.step(f"click[{name}]")
        assert info["valid"]
        assert not terminated
        assert "Plain Mug for Tea" in observation
    env.step("search[mug]")
    # The original looks for the quoted value anywhere in the page's address, the ASIN included.
    assert env.step('click["12"]')[0].startswith("You have clicked 12.\n")


def test_the_same_goals_among_other_products_are_another_panel(tmp_path: Path) -> None:
    one = hand_made(tmp_path / "one", [record("M000000001"), record("M000000002", name="Cup")])
    two = hand_made(tmp_path / "two", [record("M000000001"), record("M000000002", name="Jug")])
    task = "M000000001/synthetic/0"
    assert one.goal(task).content() == two.goal(task).content()
    assert one.panel("all").digest != two.panel("all").digest
    (tmp_path / "prices.jsonl").write_text('{"asin": "M000000002", "price": 1}\n')
    cheap = repro_rl.make("webshop", data=str(tmp_path / "one"), prices=str(tmp_path / "prices.jsonl"))
    assert cheap.panel("all").digest != one.panel("all").digest
