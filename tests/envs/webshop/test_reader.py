"""The experts that decide by the pages: what they read, that nothing hidden helps, how often they win."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repro_rl
from repro_rl.demos.mistakes import play_with_mistakes
from repro_rl.envs.webshop import WebShopEnv
from repro_rl.envs.webshop.reader import ShopReader, Wanted
from repro_rl.envs.webshop.words_reader import WordsReader


def shop(**more: Any) -> WebShopEnv:
    env = repro_rl.make("webshop", generated=(300, 0), **more)
    assert isinstance(env, WebShopEnv)
    return env


def test_an_instruction_is_read() -> None:
    wanted = Wanted.read(
        "Find me machine wash men's dress shirts with cotton heather, classic fit for daily wear with color: "
        "red | white, and fit type: youth, and size: 2t, and price lower than 50.00 dollars"
    )
    assert wanted.phrases == (
        *("machine wash men's dress shirts", "cotton heather", "classic fit", "daily wear"),
    )
    assert wanted.options == (("color", "red | white"), ("fit type", "youth"), ("size", "2t"))
    assert wanted.cap == 50.0
    assert wanted.queries()[:2] == [
        "machine wash men's dress shirts cotton heather classic fit daily wear red | white youth 2t",
        "machine wash men's dress shirts cotton heather classic fit daily wear",
    ]


@pytest.mark.parametrize(
    ("instruction", "options", "cap"),
    [
        ("Find me rich creamy deli & prepared foods, and price lower than 80.00 dollars", (), 80.0),
        ("Find me sandals with arch support with size: 6", (("size", "6"),), None),
        ("i need a long lasting battery [pack] in black, and price lower than 20.5 dollars.", (), 20.5),
    ],
)
def test_instructions_without_options_or_price(
    instruction: str, options: tuple[Any, ...], cap: float | None
) -> None:
    wanted = Wanted.read(instruction)
    assert (wanted.options, wanted.cap) == (options, cap)
    assert all("[" not in query and "]" not in query for query in wanted.queries())


def page(*pieces: str) -> str:
    return " [SEP] ".join(("Instruction:", GOAL, "Back to Search", *pieces))


GOAL = "Find me oak tables with easy assembly with color: black, and price lower than 50.00 dollars"
BUTTONS = (
    "click[back to search]",
    "click[< prev]",
    "click[description]",
    "click[features]",
    "click[buy now]",
)
RESULTS = page(
    "Page 1 (Total results: 3)", "Next >", "A1", "Oak Bench", "$20.0", "A2", "Oak Table", "$70.0"
) + (" [SEP] A3 [SEP] Oak Table, Easy Assembly [SEP] $30.0")
LISTED = ("click[next >]", "click[a1]", "click[a2]", "click[a3]")


def item(title: str, *colors: str, price: str = "$30.0") -> str:
    ending = ("Rating: N.A.", "Description", "Features", "Reviews", "Buy Now")
    return page("< Prev", "color", *colors, title, f"Price: {price}", *ending)


def test_it_compares_options_and_price_with_the_instruction() -> None:
    reader = ShopReader(15, seed=1)
    reader.read("", f"WebShop [SEP] Instruction: [SEP] {GOAL} [SEP] Search", ["search[<your query>]"])
    search = reader.next()
    assert search == "search[oak tables easy assembly black]"
    reader.read(search, RESULTS, LISTED)
    assert reader.next() == "click[a3]"  # A1 lacks words in its title, A2 is too expensive
    offers = (*BUTTONS, "click[white]", "click[gray]")
    reader.read("click[a3]", item("Oak Table, Easy Assembly", "white", "gray"), offers)
    assert reader.next() == "click[< prev]"  # there is no black one
    reader.read("click[< prev]", RESULTS, LISTED)
    assert reader.next() == "click[a1]"
    offers = (*BUTTONS, "click[black]", "click[gray]")
    reader.read("click[a1]", item("Oak Bench", "black", "gray"), offers)
    assert reader.next() == "click[features]"  # the title does not say all
    features = page("< Prev", "an oak table", "easy assembly")
    reader.read("click[features]", features, ["click[back to search]", "click[< prev]"])
    assert reader.next() == "click[< prev]"
    reader.read("click[< prev]", item("Oak Bench", "black", "gray"), offers)
    assert reader.next() == "click[black]"
    reader.read("click[gray]", item("Oak Bench", "black", "gray"), offers)  # a slip
    assert reader.next() == "click[black]"
    reader.read("click[black]", item("Oak Bench", "black", "gray"), offers)
    assert reader.next() == "click[buy now]"


def test_with_few_steps_left_it_buys_the_best_it_has_seen() -> None:
    reader = ShopReader(6, seed=1)
    reader.read("", f"WebShop [SEP] Instruction: [SEP] {GOAL} [SEP] Search", ["search[<your query>]"])
    reader.read("search[oak]", RESULTS, LISTED)
    offers = (*BUTTONS, "click[white]")
    reader.read("click[a3]", item("Oak Table, Easy Assembly", "white"), offers)
    assert reader.next() == "click[buy now]"  # another one could not be opened and bought any more


def test_a_product_without_a_price_is_read() -> None:
    reader = ShopReader(15, seed=1)
    reader.read("", f"WebShop [SEP] Instruction: [SEP] {GOAL} [SEP] Search", ["search[<your query>]"])
    reader.read("search[oak]", RESULTS, LISTED)
    empty = item("Oak Bench", "black", price="").replace("Price: ", "Price:")
    reader.read("click[a1]", empty, (*BUTTONS, "click[black]"))
    assert reader.products["Oak Bench"].values == {"black": "color"}
    assert reader.affordable("")


@pytest.mark.parametrize("style", ["text", "compact", "text_rich", "words"])
def test_it_buys_what_is_wanted(style: str) -> None:
    env = shop(style=style)
    episodes = [
        play_with_mistakes(env, task, "reader", 0.0, seed)
        for seed, task in enumerate(env.panel("train").ids[:40])
    ]
    assert all(step.valid for t in episodes for step in t.steps)
    assert np.mean([t.score for t in episodes]) > 0.85
    assert np.mean([t.won for t in episodes]) > 0.7


@pytest.mark.parametrize("style", ["text", "words"])
def test_it_goes_on_after_mistakes(style: str) -> None:
    env = shop(style=style)
    tasks = env.panel("train").ids[:30]
    episodes = [play_with_mistakes(env, task, "reader", 0.2, seed) for seed, task in enumerate(tasks)]
    assert np.mean([t.score for t in episodes]) > 0.45  # a mistake may buy something


def test_nothing_hidden_helps_it() -> None:
    """With other hidden fields of the goal behind the same instruction, it does the same."""
    env = shop()
    for task in env.panel("train").ids[:6]:
        ways = []
        for hidden in (False, True):
            _, info = env.reset(options={"task": task})
            if hidden:
                goal = env.goal(task)
                other = env.goal(env.panel("train").ids[-1])
                env._goal = replace(other, instruction=goal.instruction)
            actions: list[str] = []
            ended = False
            while not ended:
                actions.append(str(env.reader(3)))
                _, _, terminated, truncated, info = env.step(actions[-1])
                ended = terminated or truncated
            ways.append(actions)
        assert ways[0] == ways[1]
        assert info is not None


def test_its_score_on_the_real_products(shared_webshop: Path, tmp_path: Path) -> None:
    """About .9 on the mean, where the planner, which knows the target, has 1."""
    for name in ("items_shuffle_1000", "items_ins_v2_1000", "items_human_ins_1000"):
        (tmp_path / f"{name}.json").write_bytes(
            gzip.decompress((shared_webshop / f"{name}.json.gz").read_bytes())
        )
    env = repro_rl.make("webshop", data=str(tmp_path))
    tasks = env.panel("train").ids[:60]
    episodes = [play_with_mistakes(env, task, "reader", 0.0, seed) for seed, task in enumerate(tasks)]
    assert np.mean([t.score for t in episodes]) > 0.8
    assert np.mean([t.won for t in episodes]) > 0.6


def test_words_reader_takes_the_first_of_the_best_rows() -> None:
    reader = WordsReader(15)
    reader.read("", "search-page a2 o1", ["search[ $kind $a1 ]", "search[ $kind ]"])
    search = reader.next()
    assert search in ("search[ $kind $a1 ]", "search[ $kind ]")
    rows = "results:1 r1:k2a1p0v0 r2:k2a1p1v0 r3:k2a1p1v0 r4:k1a2p1v0"
    reader.read(search, rows, [])
    assert reader.next() == "click[r2]"  # r1 is too expensive, r4 of a less certain kind
    reader.read("click[r2]", "item k2 a1/2 f0 d0 p1 g1:v4", ["click[features]", "click[g1v4]"])
    assert reader.next() == "click[features]"
    reader.read("click[features]", "features k2 a2/2 f1 d0 p1 g1:v4", ["click[prev]"])
    assert reader.next() == "click[prev]"
    reader.read("click[prev]", "item k2 a2/2 f1 d0 p1 g1:v4", ["click[g1v4]"])
    assert reader.next() == "click[g1v4]"
    reader.read("click[g1v4]", "item k2 a2/2 f1 d0 p1 g1:ok", [])
    assert reader.next() == "click[buy]"
