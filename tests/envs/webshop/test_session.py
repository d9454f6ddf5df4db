"""Navigation: buttons, options, queries, unusual products."""

from __future__ import annotations

from pathlib import Path

from support.webshop_shop import hand_made, record


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
